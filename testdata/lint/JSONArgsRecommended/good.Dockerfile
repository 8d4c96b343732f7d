FROM scratch AS a
CMD ["my-server", "--port", "80"]
HEALTHCHECK CMD wget -q localhost

FROM a AS b
SHELL ["/bin/bash", "-c"]
CMD my-server

FROM b
ENTRYPOINT my-server
