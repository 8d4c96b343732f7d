target "default" {
  args = { x = join(",", "a", { b = 1 }) }
}
