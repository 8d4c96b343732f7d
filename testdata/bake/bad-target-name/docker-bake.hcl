target "app.one" {}
