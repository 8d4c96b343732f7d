# An override of an output that a parent defines, and of entries that repeat.
group "default" { targets = ["a", "b"] }
target "parent" {
  output     = ["type=image,name=x", "type=image,name=x", "type=oci,dest=a"]
  cache-from = ["a", "b", "a", "c", "b"]
  secret     = ["id=a,env=A", "id=b,env=B", "id=a,env=C"]
}
target "a" {
  inherits   = ["parent"]
  cache-from = ["d", "a"]
  secret     = ["id=b,env=D"]
}
target "b" {
  inherits = ["parent", "a"]
  output   = []
}
