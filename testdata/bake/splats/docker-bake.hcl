a = [{b={c=1}},{b={c=2}}]
target "default" { args = { a = jsonencode(a.*.b.c), b = jsonencode(a[*].b[*].c), c = jsonencode(a.*.b[0]), d=jsonencode("x".*), e = a.0.b.c } }
