hosts = { a = 1, b = 2 }
target "default" {
  args = {
    if      = "%{if true}yes%{else}no%{endif}"
    for     = "%{for k, v in hosts}${k}=${v};%{endfor}"
    strip   = "a   ${~ "b" ~}   c"
    stripif = "x %{~ if false ~} y %{~ else ~} z %{~ endif ~} w"
  }
  dockerfile-inline = <<EOT
FROM alpine
%{ for k, v in hosts ~}
RUN echo ${k} ${v}
%{ endfor ~}
    %{~ if true }
COPY a b
%{ endif ~}
USER nobody
EOT
  labels = {
    flush = <<-EOT
      first
        indented ${1 + 1}
      last $${literal}
    EOT
    quoted = <<EOT
"quotes" and \n stay
EOT
  }
}
