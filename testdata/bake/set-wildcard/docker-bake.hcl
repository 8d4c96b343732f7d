group "default" { targets = ["app-a", "app-b", "other"] }
target "app-a" { args = { X = "a" } }
target "app-b" { tags = ["b"] }
target "other" { inherits = ["app-a"] }
