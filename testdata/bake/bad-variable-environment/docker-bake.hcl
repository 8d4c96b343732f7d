variable "PORT" { default = 80 }
target "default" {}
