target "a" {
  context = "./a"
  args    = { VERSION = "1.${MINOR}", NONE = null }
  tags    = ["a:${target.b.args.VERSION}"]
  labels  = { context = target.b.context }
}
target "b" {
  context = "b"
  args    = { VERSION = target.a.args.VERSION, OTHER = try(target.a.args.NONE, "none") }
  tags    = target.a.platforms == null ? ["b:none"] : ["b:some"]
}
target "c" {
  inherits  = ["a"]
  args      = target.a.args
  tags      = [for t in target.a.tags : replace(t, "a:", "c:")]
  output    = ["type=image,push=true"]
}
target "d" {
  args = { out = jsonencode(target.c.output), ssh = length(target.c.ssh), name = target.c.name, sec = jsonencode(target.c.secret) }
}
variable "MINOR" { default = 5 }
group "default" { targets = concat(group.some.targets, ["c", "d"]) }
group "some" { targets = ["a", "b"] }
