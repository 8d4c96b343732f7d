variable "TAG" { default = "base" }
group "default" { targets = ["app", "other"] }
target "app" {
  args = { A = "1", B = "1" }
  tags = ["app:${TAG}"]
}
target "other" { context = "other" }
