target "_common" {
  args        = { GO_VERSION = "1.22", MODE = "common" }
  labels      = { a = "common", b = "common" }
  tags        = ["common"]
  platforms   = ["linux/amd64"]
  cache-from  = ["type=registry,ref=example.com/common"]
  annotations = ["a=1"]
  no-cache    = true
  contexts    = { one = "a", two = "b" }
}
target "_release" {
  args      = { MODE = "release" }
  platforms = ["linux/amd64", "linux/arm64"]
}
target "app" {
  inherits    = ["_common", "_release"]
  args        = { NAME = "app", GO_VERSION = null }
  labels      = { b = "app" }
  cache-from  = ["type=registry,ref=example.com/app", "type=registry,ref=example.com/common"]
  annotations = ["b=2", "a=1"]
  contexts    = { two = "" }
}
target "cross" {
  inherits = ["app"]
  tags     = []
  no-cache = false
}
