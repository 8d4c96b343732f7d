digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://127.0.0.1:5000/library/busybox)
sed -i "s/@DIGEST/@$digest/" Dockerfile
