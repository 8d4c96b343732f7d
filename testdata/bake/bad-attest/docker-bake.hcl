target "default" {
  attest = ["generator=x"]
}
