# syntax=docker/dockerfile:1
FROM rust:1.85-slim-bookworm AS chef
RUN cargo install cargo-chef --locked
WORKDIR /app

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /app/recipe.json recipe.json
RUN cargo chef cook --release --recipe-path recipe.json
COPY . .
RUN cargo build --release --bin server

FROM debian:bookworm-slim AS runtime
ARG UID=10001
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN adduser --disabled-password --gecos "" --uid "${UID}" appuser
USER ${UID}
COPY --from=builder --chown=${UID}:${UID} /app/target/release/server /usr/local/bin/
ENV RUST_LOG=info APP_PORT=8000
EXPOSE ${APP_PORT}
CMD ["/usr/local/bin/server"]
