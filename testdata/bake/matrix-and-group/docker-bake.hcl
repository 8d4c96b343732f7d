group "default" { targets = ["a","b"] }
target "a" { 
 matrix = { x = ["1"] }
 name = "b"
}
target "c" {}
