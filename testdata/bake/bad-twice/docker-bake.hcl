target "default" {
  tags = ["a"]
  tags = ["b"]
}
