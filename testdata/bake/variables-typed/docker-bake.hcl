variable "LIST" {
  type    = list(string)
  default = ["a"]
}
variable "NUMBERS" { type = list(number) }
variable "SET" {
  type    = set(string)
  default = ["b", "a", "b"]
}
variable "MAP" {
  type    = map(string)
  default = { a = 1 }
}
variable "OBJECT" {
  type    = object({ name = string, size = optional(number) })
  default = { name = "x", other = true }
}
variable "TUPLE" {
  type    = tuple([string, bool])
  default = [1, "true"]
}
variable "ANY" {
  type    = any
  default = [1, "x"]
}
variable "STRING" { type = string }
target "default" {
  args = {
    all = jsonencode([LIST, NUMBERS, SET, MAP, OBJECT, TUPLE, ANY, STRING])
  }
}
