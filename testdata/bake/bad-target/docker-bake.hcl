target "web" {}
target "app" {}
