FROM amd64-only AS a
FROM scratch
COPY --from=amd64-only / /
