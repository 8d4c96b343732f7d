group "web" { targets = ["web-a"] }
target "web-a" {}
target "web-b" {}
