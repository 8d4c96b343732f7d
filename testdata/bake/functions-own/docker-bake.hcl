function "tag" {
  params = [name, version]
  result = ["${repo}/${name}:${version}", "${repo}/${name}:latest"]
}
function "joined" {
  params          = [separator]
  variadic_params = parts
  result          = join(separator, parts)
}
function "double" {
  params = [n]
  result = n * 2
}
function "quadruple" {
  params = [n]
  result = double(double(n))
}
repo = "example.com"
target "default" {
  tags = tag("app", quadruple(1))
  args = { j = joined("-", "a", "b", 3), none = joined(","), spread = joined(["+", "x", "y"]...) }
}
