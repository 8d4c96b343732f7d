target "default" {
  description       = "All that a target can have"
  annotations       = ["org.example.a=1", "index,manifest:org.example.b=2", "org.example.a=1"]
  args              = { VERSION = "1.2", EMPTY = "", NONE = null, NUMBER = 3, FLAG = true, FLOAT = 1.50 }
  attest            = ["type=provenance,mode=max", "type=sbom"]
  cache-from        = ["type=registry,ref=example.com/app:cache", "example.com/app:a", "type=gha,scope=x"]
  cache-to          = ["type=local,dest=cache,mode=max"]
  call              = "check"
  context           = "./app/../src/"
  contexts          = { base = "docker-image://alpine:3.20", files = "../files" }
  dockerfile        = "./docker/../Dockerfile.app"
  dockerfile-inline = "FROM scratch\nCOPY . $${DIR}\n"
  entitlements      = ["network.host", "security.insecure"]
  extra-hosts       = { "db.example.com" = "10.0.0.1", gone = null }
  labels            = { "org.opencontainers.image.title" = "App <&>", none = null }
  network           = "host"
  no-cache          = false
  no-cache-filter   = ["build", "test"]
  output            = ["type=image,name=app,push=false"]
  platforms         = ["linux/amd64", "linux/arm64", "linux/amd64"]
  pull              = true
  shm-size          = "128m"
  tags              = ["app:1", "app:latest", "app:1"]
  target            = "release"
  ulimits           = ["nofile=1024:2048", "nproc=5"]
}
