target "default" {
  tag       = ["ignored"]
  platfroms = ["ignored"]
  args { A = "a block is ignored" }
}
something "else" {}
