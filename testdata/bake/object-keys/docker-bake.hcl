target "default" { args = { if = "y", in = "z", true = "t", null = "n", a-b = "dash", "é" = "u", 1 = "num", endif = "x" } }
