# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake clang && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
# The dependencies alone first, so that a change of the sources does not build them again.
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked && rm -rf src
COPY src src
COPY setenv.sh.template docker-compose.yml README.m[d] ./
RUN touch src/main.rs src/lib.rs && cargo build --release --locked && mkdir -p /out/state && cp target/release/linkspan /out/

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="linkspan" \
      org.opencontainers.image.description="Links two Kafka clusters in networks that cannot see each other" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/linkspan /linkspan
# A new volume takes this mode, so that any user the operator runs as can keep its state.
COPY --from=build --chown=65532:65532 --chmod=1777 /out/state /etc/linkspan/state
WORKDIR /etc/linkspan
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["/linkspan", "healthcheck", "--config", "/etc/linkspan/linkspan.toml"]
ENTRYPOINT ["/linkspan"]
CMD ["run", "--config", "/etc/linkspan/linkspan.toml"]
