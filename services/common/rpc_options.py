"""The gRPC options that both ends must agree on, each with its reason."""

from __future__ import annotations

from typing import Final

# Ours are small batches; a message that is larger is a mistake or an attack. gRPC's own default.
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
# A peer that lost power is noticed within 30 s + 10 s, before a user's idle limit of 60 s.
KEEPALIVE_S: Final = 30
KEEPALIVE_TIMEOUT_S: Final = 10
# Half the interval, so that a client's clock that runs fast is not answered with too_many_pings.
KEEPALIVE_ACCEPTED_S: Final = KEEPALIVE_S // 2
# Open calls on one connection: far above what an edge or a tool has, far below what would exhaust memory.
STREAMS_MAX: Final = 1_024

Options = tuple[tuple[str, int | str], ...]

# Without the two flow-control options a stream buffers some 5 MB before it pushes back, and a critical event waits
# behind all of it; with them it is 25 KB.
_BOTH: Final[Options] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 16_384),
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1_000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER: Final[Options] = (
    *_BOTH,
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_ACCEPTED_S * 1_000),
    # Two processes that share a port by mistake would each get half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.enable_channelz", 1),
)

CHANNEL: Final[Options] = (
    *_BOTH,
    # Channels are connections: what must not wait behind file bytes has a channel of its own.
    ("grpc.use_local_subchannel_pool", 1),
    # These calls never leave the installation, whatever http_proxy says.
    ("grpc.enable_http_proxy", 0),
    # A service that restarts is back within a second or two; gRPC's own defaults would wait up to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
