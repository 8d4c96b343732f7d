target "default" { args = { a = 1e100, b = 1.10, e = 100000000000000000000000.5, f = 1e-10, g = 3.0, h = 5 / 2 * 2, i = "${1.0}", j = jsonencode(1e100) } }
