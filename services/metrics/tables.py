"""tables: a sample for each interval, messages by hour, how far each source has counted, spans, logs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, text

metadata = MetaData()

# Ordered by the time of the clock, of which there may be two the same when it was set back.
samples = Table(
    "samples",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("requests", Integer, nullable=False),
    Column("processing_mean_ms", Float),
    Column("processing_p50_ms", Float),
    Column("processing_p99_ms", Float),
    Column("latencies", Integer, nullable=False),
    Column("latency_mean_ms", Float),
    Column("latency_p50_ms", Float),
    Column("latency_p99_ms", Float),
    Column("messages_per_second", Float, nullable=False),
    Column("connections", Float),
    Column("users", Float),
    Column("deliveries_per_second", Float),
    Column("fan_out", Float),
    Column("waits", Integer, nullable=False, server_default="0"),
    Column("wait_critical_ms", Float),
    Column("wait_high_ms", Float),
    Column("wait_normal_ms", Float),
    Column("wait_low_ms", Float),
    Column("commits", Integer, nullable=False, server_default="0"),
    Column("batch_mean", Float),
    Column("batch_p99", Float),
    Column("commit_p99_ms", Float),
)

# `hour` counts hours since 1970.
hourly_messages = Table(
    "hourly_messages",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("messages", Integer, nullable=False),
)

# `runs` is JSON: a list of (metric, attributes, start_ns, value).
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("service", String(32), primary_key=True),
    Column("instance", String(64), primary_key=True),
    Column("kept_at", Float, nullable=False, index=True),
    Column("time_ns", BigInteger, nullable=False),
    Column("runs", LargeBinary, nullable=False),
)

# Ids are hex; `message_id`, `room_id` and `user_id` are there where the span names them. `body` is JSON: the span.
spans = Table(
    "spans",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trace_id", String(32), nullable=False),
    Column("kept_at", Float, nullable=False),
    Column("is_entry", Boolean, nullable=False),
    Column("is_error", Boolean, nullable=False),
    Column("duration_ns", BigInteger, nullable=False),
    Column("message_id", String(256), index=True),
    Column("room_id", String(256)),
    Column("user_id", String(256)),
    Column("size", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("ix_spans_entries", spans.c.id, sqlite_where=text("is_entry"))

# Which spans concern a trace: its own, and those that link to it.
span_traces = Table(
    "span_traces",
    metadata,
    Column("trace_id", String(32), primary_key=True),
    Column("span_row", Integer, primary_key=True, index=True),
)

# `body` is JSON: the record.
log_records = Table(
    "log_records",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kept_at", Float, nullable=False),
    Column("level", Integer, nullable=False),
    Column("instance", String(64), nullable=False),
    Column("trace_id", String(32), index=True),
    Column("size", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
