variable "L" { 
 type = list(string)
 default = [1, true, "x"]
}
variable "M" { 
 type = map(list(number))
 default = { a = ["1"] }
}
variable "N" { 
 type = number
 default = "12"
}
variable "T" { type = bool }
variable "S" { 
 type = set(any)
 default = ["1", 2]
}
target "default" { args = { x = jsonencode([L, M, N, S]), n = N + 1, t = T == null ? "null" : "x" } }
