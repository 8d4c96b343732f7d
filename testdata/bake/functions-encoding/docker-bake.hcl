function "s" {
  params = [value]
  result = jsonencode(value)
}
target "default" {
  args = {
    csv = s(csvdecode("a,b\n1,2\n3,4"))
    url = urlencode("a b&c/ü~")
    md5 = md5("x")
    jd = s(jsondecode("{\"a\":[1,2.5,null,\"<x>\"]}"))
    je = jsonencode({a=[1,2.5,null,"<x>", "é\u2028"]})
    b64 = base64encode("hi")
    b64d = base64decode("aGk=")
    sha1 = sha1("x")
    sha256 = sha256("x")
    sha512 = sha512("x")
    jsonnum = jsonencode([1, 1.5, 1e30, 100000000000000000000])
    jsonset = jsonencode(setunion(["b","a"]))
    jsondecode = s(jsondecode("[1e2, 0.1, {\"a\": {}}]"))
    urls = urlencode("ä=&?#/+ ~-_.!*'()")
    csvq = s(csvdecode("a,b\n\"x,1\",\"say \"\"hi\"\"\"\n"))
    b64u = base64encode("ü🎉")
    uuid5 = uuidv5("dns", "example.com")
    uuid5u = uuidv5("6ba7b811-9dad-11d1-80b4-00c04fd430c8", "x")
    uuid4 = strlen(uuidv4())
    bcrypt = substr(bcrypt("x", 4), 0, 7)
  }
}
