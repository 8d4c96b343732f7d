target "a" { context = "https://github.com/docker/buildx.git" }
target "b" { context = "github.com/docker/x" }
target "c" { context = "/abs/../x/" }
target "d" { context = "cwd://" }
target "e" { context = "" }
target "f" { dockerfile = "" }
