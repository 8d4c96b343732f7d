target "app" {
  name   = "app-${a}"
  matrix = { a = ["1"], b = ["x", "y"] }
}
