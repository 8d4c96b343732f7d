a = b
b = [for i in range(3): i*i]
c = { for k, v in { x = 1 } : k => v }
target "default" { args = { a = jsonencode(a), c = jsonencode(c) } }
