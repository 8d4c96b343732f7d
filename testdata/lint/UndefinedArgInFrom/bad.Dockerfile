ARG MY_ARCH=amd64
FROM --platform=$BULIDPLATFORM alpine AS a
FROM --platform=linux/${MYARCH} alpine AS b
FROM busybox:stable${variant} AS c
