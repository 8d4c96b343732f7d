FROM alpine
RUN apk add \
    # a comment is fine
    curl \
    git
