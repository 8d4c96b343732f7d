group "a" { targets = ["b"] }
target "a" { tags=["t"] }
target "b" {}
group "default" { targets = ["a"] }
