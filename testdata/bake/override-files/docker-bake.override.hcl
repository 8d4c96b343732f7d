variable "TAG" { default = "override" }
group "default" { targets = ["app"] }
target "app" {
  args   = { B = "2", C = "2" }
  labels = { l = TAG }
}
