variable "PORT" {
  default = 99999
  validation {
    condition     = PORT < 65536
    error_message = "PORT must be a port, not ${PORT}."
  }
}
target "default" {}
