target "app" { args = { FILE = "c" } }
target "base" { labels = { base = "yes" } }
