target "web" {
  args = { B = "hcl" }
  tags = ["web:hcl"]
}
target "release" {
  inherits = ["web"]
  output   = ["type=registry"]
}
group "all" { targets = ["web", "release"] }
