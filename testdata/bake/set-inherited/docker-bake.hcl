target "a" { tags = ["x"] }
target "b" { inherits = ["a"] }
