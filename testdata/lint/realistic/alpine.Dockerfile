FROM alpine:3.21

# Build-time facts, filled in by the release job
ARG BUILD_DATE
ARG VCS_REF=unknown
LABEL org.opencontainers.image.created=$BUILD_DATE \
      org.opencontainers.image.revision=$VCS_REF

ENV LANG=C.UTF-8 \
    TZ=Europe/Berlin

RUN set -eux; \
    apk add --no-cache \
        # for TLS
        ca-certificates \
        curl \
        tzdata \
    ; \
    for dir in a b; do mkdir -p "/var/lib/$dir"; done

COPY docker-entrypoint.sh /usr/local/bin/
VOLUME ["/var/lib/a", "/var/lib/b"]
WORKDIR /var/lib/a
EXPOSE 53/udp 53/tcp 9000-9010
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["serve"]
