target "default" {
  dockerfile-inline = <<-DOCKERFILE
    FROM alpine AS base
    RUN <<EOF
    echo "$${HOME}" $HOME %d
    EOF

    FROM base
    COPY --from=base /a /b
  DOCKERFILE
}
