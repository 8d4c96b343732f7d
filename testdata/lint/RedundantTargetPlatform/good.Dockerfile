FROM --platform=$BUILDPLATFORM alpine AS a
FROM alpine AS b
