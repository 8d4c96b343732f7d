target "base" {
  platforms    = ["linux/amd64", "linux/arm64"]
  entitlements = ["security.insecure"]
}
target "middle" {
  contexts = { base = "target:base" }
  output   = ["type=docker"]
}
target "app" {
  contexts  = { middle = "target:middle", img = "docker-image://busybox", git = "https://example.com/x.git#main" }
  platforms = ["linux/amd64"]
}
