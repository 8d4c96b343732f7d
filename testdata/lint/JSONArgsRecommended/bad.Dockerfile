FROM scratch AS a
CMD my-server --port 80

FROM a
ENTRYPOINT exec my-server "$PORT"
