target "app" {
  tags = ["a"]
  args = { FILE = "a", A = "a" }
}
