target "app" {
  name = "app-${tgt}"
  matrix = {
    tgt = ["lint", "unit"]
  }
  target = tgt
  tags   = ["app:${tgt}"]
}
target "objects" {
  name   = "obj-${replace(item.version, ".", "-")}"
  matrix = { item = [{ version = "1.0", tag = "old" }, { version = "2.0", tag = "new" }] }
  args   = { VERSION = item.version }
  tags   = [item.tag]
}
target "one" {
  matrix = { x = ["only"] }
  args   = { X = x }
}
target "from" {
  inherits = ["app-unit"]
  contexts = { lint = "target:app-lint" }
}
group "default" { targets = ["app", "objects", "one", "from"] }
