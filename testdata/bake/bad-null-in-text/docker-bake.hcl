variable "TAG" { default = null }
target "default" { tags = ["app:${TAG}"] }
