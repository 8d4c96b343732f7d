target "default" {
  args = {
    semver = jsonencode([semvercmp("1.2.3", ">= 1.2, < 2"), semvercmp("v2.0.0", "~1")])
    format = formattimestamp("DD MMM YYYY hh:mm:ss", 1690328596)
    unix   = formattimestamp("X", "2023-07-25T23:43:16Z")
    parsed = jsonencode(unixtimestampparse(1690328596))
  }
  resources = { memory = "512m", cpu-shares = 2, cpuset-cpus = "0-1" }
  policy    = ["filename=policy.rego,strict=true", { disabled = true }]
}
