target "default" { args = { A = "hcl", B = target.default.tags == null ? "x" : "y" } }
