function "s" {
  params = [value]
  result = jsonencode(value)
}
target "default" {
  args = {
    date = formatdate("EEEE, DD-MMM-YY hh:mm:ss ZZZ 'o''clock' AA aa HH H h D M YYYY MMMM MM EEE ZZZZ ZZZZZ Z m s", "2018-01-02T23:12:01+01:30")
    timeadd = timeadd("2017-11-22T00:00:00Z", "1h30m")
    timeadd2 = timeadd("2017-11-22T00:00:00+02:00", "-36h0.5s")
    cidrh = cidrhost("10.12.127.0/20", 268)
    cidrh6 = cidrhost("fd00:fd12:3456:7890:00a2::/72", 34)
    cidrneg = cidrhost("10.0.0.0/24", -1)
    cidrm = cidrnetmask("172.16.0.0/12")
    cidrs = cidrsubnet("172.16.0.0/12", 4, 2)
    cidrs6 = cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)
    cidrss = s(cidrsubnets("10.1.0.0/16", 4, 4, 8, 4))
    formatdate = formatdate("DD MMM YYYY hh:mm ZZZ", "2020-02-29T23:59:59Z")
    formats = formatdate("YY/M/D h:m:s aa AA HH H EEE, ZZZZZ", "1999-12-31T12:05:09-07:30")
    neg = timeadd("2020-03-01T00:00:00Z", "-1s")
    now = strlen(timestamp())
  }
}
