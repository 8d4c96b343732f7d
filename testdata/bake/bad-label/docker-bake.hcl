target {
  tags = []
}
