target "default" { args = target.other.args }
target "other" { args = { x = target.default.args.x } }
