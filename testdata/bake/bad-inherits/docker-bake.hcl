target "default" { inherits = ["missing"] }
