# Groups may contain groups.
group "default" {
  targets = ["app", "tools"]
}
group "tools" {
  description = "Everything else"
  targets     = ["lint", "docs", "lint"]
}
target "app" { tags = ["app:latest"] }
target "lint" { target = "lint" }
target "docs" { output = ["type=local,dest=./docs"] }
