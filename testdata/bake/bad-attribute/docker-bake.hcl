target "default" { tags = [target.other.args.VERSON] }
target "other" { args = { VERSION = "1" } }
