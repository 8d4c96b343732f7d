variable "PORT" {
  default     = 80
  description = "Port of the server"
  validation {
    condition     = PORT > 0 && PORT < 65536
    error_message = "PORT must be a port, not ${PORT}."
  }
  validation {
    condition     = PORT != OTHER
    error_message = "PORT and OTHER must differ."
  }
}
variable "OTHER" { default = 81 }
target "default" { args = { PORT = PORT } }
