variable "TAG" { default = "latest" }
variable "REPO" { default = "example.com/${NAME}" }
variable "NAME" { default = "app" }
variable "DEBUG" { default = false }
variable "COUNT" { default = 3 }
variable "UNSET" {}
variable "NULL" { default = null }
name = "attribute-${TAG}"
target "default" {
  tags = ["${REPO}:${TAG}", notequal("", UNSET) ? "x:${UNSET}" : "", "x:${COUNT + 1}"]
  args = {
    debug = DEBUG ? "yes" : "no"
    name  = name
    null  = NULL
    type  = jsonencode([DEBUG, COUNT, TAG, NULL])
  }
}
