FROM everywhere AS a
FROM scratch
COPY --from=everywhere / /
