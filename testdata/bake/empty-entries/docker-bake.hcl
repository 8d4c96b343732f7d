target "default" {
 secret = ["id=a,env=X", {id="c", env="E"}]
 entitlements = ["network.host", ""] 
 network = "host"
 tags = ["", "a", "a"] 
 contexts = { a = "", b = "x" }
 annotations = ["", "x=1"]
 args = {} 
 labels = { } 
 ulimits = [""]
}
