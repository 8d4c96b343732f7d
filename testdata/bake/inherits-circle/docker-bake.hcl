target "default" {
 inherits = ["b"] 
 args = {d=1}
}
target "b" { 
 inherits = ["default"]
 args = {b=1}
}
