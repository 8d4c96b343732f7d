group "default" { target = ["a"] }
target "a" {}
