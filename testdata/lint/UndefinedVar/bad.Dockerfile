ARG VERSION=1

FROM scratch AS known
COPY $foo .
ENV PATH=$PAHT:/opt/bin
COPY <<EOF /nginx.conf
proxy_set_header Host $host;
EOF

FROM golang AS unknown
ARG DIR_ASSETS=assets/
COPY $DIR_ASSET .
LABEL version=$VERSION arch=${TARGETARCH}
WORKDIR /app/$LATER
ENV LATER=1
