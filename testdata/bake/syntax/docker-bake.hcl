// comments of all
# three kinds
/* and this
   one */
target app {
  args = {
    "quoted"  : "colon",
    (upper("computed")) = "x"
    newline = 1, same = 2
    "${"tem"}plate" = "t"
  }
  tags = [
    "a:1",   # trailing comment
    "a:2",
  ]
}
target "one-line" { target = "x" }
group "default" { targets = ["app", "one-line"] }
