target "default" {
  tags      = setunion(["z", "a"], ["m"])
  platforms = keys({ "linux/arm64" = 1, "linux/amd64" = 2 })
  args = {
    numbers = jsonencode(setunion([10, 9, 1], [2.5]))
    bools   = jsonencode(setunion([true], [false]))
    keys    = join(",", [for k, v in { b = 1, a = 2, "10" = 3, "9" = 4 } : k])
    product = jsonencode([for p in setproduct(["b", "a"], ["y", "x"]) : join("", p)])
  }
}
