target "default" { tags = ["first"] }
