# Entries as objects and as texts.
target "default" {
  attest = [
    { type = "provenance", mode = "min" },
    { type = "sbom", disabled = true },
    "type=sbom,generator=example.com/scanner:1",
  ]
  cache-from = [
    { type = "registry", ref = "example.com/a:cache" },
    { type = "s3", region = "eu-west-1", bucket = "b", name = "n" },
    "example.com/b:cache",
    "",
  ]
  cache-to = [{ type = "inline" }]
  output = [
    { type = "oci", dest = "out.tar", tar = true },
    "type=local,dest=out",
    "plain-directory",
    { type = "registry" },
  ]
  secret = [
    { id = "token", env = "TOKEN" },
    "id=npm,type=env,src=NPM_TOKEN",
  ]
}
