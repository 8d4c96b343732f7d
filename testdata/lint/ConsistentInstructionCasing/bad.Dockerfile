From alpine AS base
FROM alpine
copy a /
COPY b /
