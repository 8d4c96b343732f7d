variable "A" { default = "" }
target "default" { 
args = { a = A == "" ? null : A, b = A != "" ? A : A == null ? "x" : "y", c = A == "" ? 1 : "2", d = jsonencode(A == "" ? [] : ["x"]), e = jsonencode([for x in [] : x]) }
 tags = compact([A, "x", ""])
 platforms = A == "" ? [] : ["linux/amd64"]
 output = A == "" ? ["type=docker"] : []
}
