variable "TAG" {
  default     = "latest"
  description = "Tag of the images"
}
variable "PORTS" {
  type    = list(number)
  default = [80, 443]
}
variable "NULL" { default = null }
variable "TYPED" { type = string }
variable "FLAG" { default = true }
variable "OBJECT" { default = { a = 1, b = ["x"] } }
variable "ANY" {
  type    = any
  default = 5
}
variable "DEEP" { type = map(list(object({ a = string }))) }
group "default" { targets = ["web", "app"] }
group "described" {
  description = "Of everything"
  targets     = ["web"]
}
target "app" { description = "The application" }
target "web" {
  name   = "web-${x}"
  matrix = { x = ["a", "b"] }
}
target "_private" {}
