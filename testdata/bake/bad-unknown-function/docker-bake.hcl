target "default" {
  args = { x = uper("x") }
}
