target "app" {
  tags = ["a:1"
  args = {}
}
