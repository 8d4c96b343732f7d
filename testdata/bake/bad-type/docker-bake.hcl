target "default" {
  tags = "app:latest"
}
