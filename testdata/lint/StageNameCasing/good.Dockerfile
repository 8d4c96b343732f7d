FROM scratch AS build-base

FROM scratch AS ok_2
COPY --from=build-base / /
