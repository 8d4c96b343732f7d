target "default" {
  args = {
    A = "x"
  }
  dockerfile-inline = <<EOT
FROM a
RUN b
EOT
}
