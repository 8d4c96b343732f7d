ARG VERSION=latest
ARG VARIANT
ARG STAGE=base
FROM busybox:${VERSION} AS base
FROM busybox:stable${VARIANT}
FROM ${STAGE}
FROM ${REGISTRY:-docker.io}/library/busybox
