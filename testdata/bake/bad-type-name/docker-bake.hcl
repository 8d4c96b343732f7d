variable "LIST" { type = list(strng) }
target "default" {}
