#!/usr/bin/env bash
# Stand-ins for the public images of the compose file, out of Debian's packages, for a machine that reaches no
# container registry: images.sh [--missing]. They have the public names, so that builds find them, and the label
# parley.standin. For tests only. Needs root, a running engine and debootstrap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
base=parley-standin/debian:bookworm
label='LABEL parley.standin=true'
bundle=/etc/ssl/certs/ca-certificates.crt
only_missing=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

is_wanted() { [ "$only_missing" != --missing ] || ! is_here "$1"; }
is_here() { docker image inspect "$1" >/dev/null 2>&1; }

install_packages='export DEBIAN_FRONTEND=noninteractive && apt-get update -qq && apt-get install -y -qq --no-install-recommends'

# standin TAG [PROGRAM]: the rest of a Dockerfile comes on stdin.
standin() {
  is_wanted "$1" || return 0
  if ! is_here "$base"; then
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" >/dev/null
    tar -C "$work/root" -c . | docker import -c "$label" - "$base" >/dev/null
    rm -rf "$work/root"
  fi
  mkdir "$work/context"
  cp "$bundle" "$work/context/bundle.crt"
  printf '%s' "$postgres_entrypoint" >"$work/context/docker-entrypoint.sh"
  [ -z "${2:-}" ] || cp "$2" "$work/context/program"
  { printf 'FROM %s\n%s\n' "$base" "$label"; cat; } >"$work/context/Dockerfile"
  docker build -q -t "$1" "$work/context" >/dev/null
  rm -rf "$work/context"
  echo "stand-in: $1"
}

# What the compose file uses of the public image: POSTGRES_PASSWORD_FILE, POSTGRES_DB, and init.sql at the first start.
postgres_entrypoint='#!/bin/bash
set -euo pipefail
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb -U postgres --auth-host=scram-sha-256 --auth-local=trust --pwfile="$POSTGRES_PASSWORD_FILE" -E UTF8 --locale=C.UTF-8 >/dev/null
  pg_ctl -w -o "-c listen_addresses=" start >/dev/null
  createdb -U postgres "$POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*.sql; do psql -U postgres -d "$POSTGRES_DB" -v ON_ERROR_STOP=1 -f "$file"; done
  pg_ctl -w stop >/dev/null
fi
exec "$@" -c "listen_addresses=*"
'

standin "${PYTHON_IMAGE:-python:3.11-slim-bookworm}" <<X
RUN $install_packages python3 python3-venv python3-pip >/dev/null && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \
 && ln -s /usr/bin/python3 /usr/local/bin/python
COPY bundle.crt $bundle
ENV PIP_CERT=$bundle SSL_CERT_FILE=$bundle
X

standin "${POSTGRES_IMAGE:-postgres:15-bookworm}" <<X
RUN $install_packages postgresql-15 >/dev/null && rm -rf /var/lib/apt/lists/* && pg_dropcluster 15 main
ENV PATH=/usr/lib/postgresql/15/bin:\$PATH PGDATA=/var/lib/postgresql/data
RUN mkdir -p /var/lib/postgresql/data /docker-entrypoint-initdb.d && chown -R postgres:postgres /var/lib/postgresql
COPY docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 755 /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
X

standin "${REDIS_IMAGE:-redis:7-bookworm}" <<X
RUN $install_packages redis-server redis-tools >/dev/null && rm -rf /var/lib/apt/lists/*
USER redis
CMD ["redis-server"]
X

standin "${HAPROXY_IMAGE:-haproxy:2.6-bookworm}" <<X
RUN $install_packages haproxy >/dev/null && rm -rf /var/lib/apt/lists/* && mkdir -p /usr/local/etc/haproxy
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
X

standin "${PROMETHEUS_IMAGE:-prom/prometheus:v2.42.0}" <<X
RUN $install_packages prometheus >/dev/null && rm -rf /var/lib/apt/lists/* && mkdir -p /prometheus && chown nobody /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
X

# These two are in no package: built from their sources, which takes Go, its module proxy and some minutes. Without them
# the rest can be tested.
collector=${OTEL_COLLECTOR_IMAGE:-otel/opentelemetry-collector:0.111.0} jaeger=${JAEGER_IMAGE:-jaegertracing/all-in-one:1.62.0}
if command -v go >/dev/null && { is_wanted "$collector" || is_wanted "$jaeger"; }; then
  programs=${PARLEY_TRACING_PROGRAMS:-$work/programs}
  [ -z "${PARLEY_WITHOUT_TRACING:-}" ] && timeout 480 tests/helpers/tracing_programs.sh "$programs" || {
    echo "images: neither the OpenTelemetry collector nor Jaeger could be built" >&2
    exit 0
  }
  standin "$collector" "$programs/otelcol" <<X
COPY program /otelcol
ENTRYPOINT ["/otelcol"]
X
  standin "$jaeger" "$programs/jaeger-all-in-one" <<X
COPY program /go/bin/all-in-one-linux
ENTRYPOINT ["/go/bin/all-in-one-linux"]
X
fi
