#!/usr/bin/env bash
# Builds the OpenTelemetry collector and Jaeger that deploy/compose.yaml names, for machines that reach no container
# registry: tracing_programs.sh FOLDER makes FOLDER/otelcol and FOLDER/jaeger-all-in-one. What is there stays. Needs Go.
set -euo pipefail
collector=0.111.0 providers=1.17.0 jaeger=1.62.0
folder=$(mkdir -p "$1" && cd "$1" && pwd)
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT

# With the parts of the public image that deploy/config/otel-collector.yml uses.
if [ ! -x "$folder/otelcol" ]; then
  core=go.opentelemetry.io/collector contrib=github.com/open-telemetry/opentelemetry-collector-contrib
  cat >"$work/builder.yaml" <<X
dist: {name: otelcol, module: localhost/otelcol, output_path: $work/otelcol, version: $collector}
receivers: [{gomod: $core/receiver/otlpreceiver v$collector}]
processors:
  - {gomod: $core/processor/batchprocessor v$collector}
  - {gomod: $core/processor/memorylimiterprocessor v$collector}
exporters:
  - {gomod: $core/exporter/otlpexporter v$collector}
  - {gomod: $core/exporter/debugexporter v$collector}
  - {gomod: $contrib/exporter/prometheusexporter v$collector}
providers:
  - {gomod: $core/confmap/provider/fileprovider v$providers}
  - {gomod: $core/confmap/provider/envprovider v$providers}
X
  GOBIN=$work go install "$core/cmd/builder@v$collector"
  "$work/builder" --config "$work/builder.yaml" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
  mv "$work/otelcol/otelcol" "$folder/otelcol"
fi

# From its own module, with the versions that it is pinned to. It lacks the pages in the browser, which npm would make.
if [ ! -x "$folder/jaeger-all-in-one" ]; then
  (cd "$work" && go mod init localhost/jaeger && go mod download "github.com/jaegertracing/jaeger@v$jaeger") >/dev/null 2>&1
  cp -r "$(go env GOMODCACHE)/github.com/jaegertracing/jaeger@v$jaeger" "$work/jaeger"
  chmod -R u+w "$work/jaeger"
  (cd "$work/jaeger" && go build -o "$work/all-in-one" ./cmd/all-in-one)
  mv "$work/all-in-one" "$folder/jaeger-all-in-one"
fi
