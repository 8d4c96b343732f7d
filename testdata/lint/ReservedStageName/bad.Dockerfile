FROM scratch AS scratch
FROM alpine AS context
