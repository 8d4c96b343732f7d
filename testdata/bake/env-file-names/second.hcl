target "default" { labels = { second = "yes" } }
