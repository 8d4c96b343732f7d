target "default" { 
  annotations = ["manifest[linux/amd64]:x=y", "index-descriptor:b=c"]
  call = "targets"
  extra-hosts = { "a" = "1.1.1.1", b = "host-gateway" }
  contexts = { a = "oci-layout:///x", b = "https://x/y.git", c = "../..", d = "cwd://x/../y" }
  context = "https://github.com/docker/buildx.git#v0.29.0:dir"
  dockerfile = "a/../b"
}
