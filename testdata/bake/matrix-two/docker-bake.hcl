variable "VERSIONS" { default = ["1", "2"] }
target "app" {
  name   = "app-${os}-${v}"
  matrix = { os = ["a", "b"], v = VERSIONS }
  tags   = ["${os}:${v}"]
}
