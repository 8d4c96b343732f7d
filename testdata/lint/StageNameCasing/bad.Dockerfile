FROM scratch AS BuildBase

FROM scratch AS ok
COPY --from=BuildBase / /
