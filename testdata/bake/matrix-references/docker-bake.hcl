variable "V" { default = ["1.0","2.0"] }
function "n" { 
 params=[v]
 result = sanitize(v)
}
target "base" {
 matrix = { v = V }
 name = "base-${n(v)}"
 args = { V = v }
}
target "default" { 
 matrix = { v = V }
 name = "app-${n(v)}"
 contexts = { base = "target:base-${n(v)}" }
 args = { B = target.base-1_0.args.V }
}
