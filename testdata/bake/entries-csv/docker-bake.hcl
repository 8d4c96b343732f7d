target "default" {
 cache-from = ["x,y", "user/app:cache", {type="gha"}]
 cache-to = ["type=local,dest=a b,mode=max", "\"type=s3\",\"k=v,w\""] 
 output = ["-", "dir", "type=image,\"name=a,b\",push=true", "Type=oci,DEST=x"]
 attest = ["type=provenance,mode=max,disabled=false", "type=sbom,Generator=x"]
}
