FROM --platform=$TARGETPLATFORM alpine AS a
FROM --platform=${TARGETPLATFORM} alpine AS b
