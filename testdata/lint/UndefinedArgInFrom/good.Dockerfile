ARG base=alpine
ARG DEBUG
FROM --platform=$BUILDPLATFORM $base AS a
FROM busybox${DEBUG}
FROM busybox:${unset:-stable}
