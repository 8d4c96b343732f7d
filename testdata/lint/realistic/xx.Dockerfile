# syntax=docker/dockerfile:1
ARG ALPINE_VERSION=3.21
ARG XX_VERSION=1.6.1
ARG BASE_IMAGE=alpine:${ALPINE_VERSION}

FROM --platform=$BUILDPLATFORM tonistiigi/xx:${XX_VERSION} AS xx

FROM --platform=$BUILDPLATFORM ${BASE_IMAGE} AS cross
COPY --from=xx / /
RUN apk add --no-cache clang lld
ARG TARGETPLATFORM
ARG TARGETVARIANT
RUN xx-apk add --no-cache gcc musl-dev
WORKDIR /src
COPY --link . .
RUN xx-clang --static -o "/out/app${TARGETVARIANT:+-$TARGETVARIANT}" main.c

FROM scratch AS binaries
COPY --from=cross /out/ /

FROM ${BASE_IMAGE} AS dev
ONBUILD COPY . /work
WORKDIR /work
CMD ["sh"]

FROM dev-${DEV_SUFFIX:-none} AS unused

FROM --platform=linux/amd64 ${BASE_IMAGE} AS tool-amd64
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.org/tool.tar.gz /

FROM binaries
COPY --from=tool-amd64 /tool.tar.gz /licences/
ENTRYPOINT ["/app"]
