target "default" {
  contexts  = { b = "target:b" }
  platforms = ["linux/amd64", "linux/s390x"]
}
target "b" { platforms = ["linux/amd64", "linux/arm64"] }
