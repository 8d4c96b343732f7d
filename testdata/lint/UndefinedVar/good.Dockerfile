ARG VERSION=1

FROM scratch AS known
ARG foo
ARG VERSION
ARG TARGETARCH
COPY $foo ${bar:-baz} .
ENV PATH=$PATH:/opt/bin V=$VERSION-$TARGETARCH
COPY <<'EOF' /nginx.conf
proxy_set_header Host $host;
EOF
RUN echo $anything
CMD ["$anything"]

FROM known
LABEL version=$VERSION literal='$no' escaped=\$no

FROM golang
WORKDIR $GOPATH/src
ENV PYTHONPATH=$PYTHONPATH:/x

FROM scratch AS parent
ONBUILD ARG FROM_TRIGGER
FROM parent
LABEL a=$FROM_TRIGGER
