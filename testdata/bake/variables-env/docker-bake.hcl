variable "TAG" { default = "latest" }
variable "DEBUG" { default = false }
variable "COUNT" { default = 3 }
variable "UNSET" {}
variable "NULL" { default = null }
target "default" {
  args = {
    all = jsonencode([TAG, DEBUG, COUNT, UNSET, NULL])
  }
}
