group "default" { targets = ["none", "image", "docker", "registry", "local"] }
target "none" {}
target "image" { output = ["type=image,name=x"] }
target "docker" { output = ["type=docker"] }
target "registry" { output = ["type=registry", "type=docker,dest=x.tar"] }
target "local" { output = ["type=local,dest=out"] }
