"""The edge's configuration: where it listens, whom it asks, and every limit that an operator may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.common.config import ServiceConfig, split_host_port
from services.common.wire import limits
from services.edge.balancers import parse_network
from services.edge.qos.classes import DEFAULT_SETTINGS, ClassSettings, QosClass
from services.edge.qos.pump import CONCURRENCY_MAX, CONCURRENCY_MIN

_RATE_MAX: Final = 1_000_000
_ROOMS_MAX: Final = 16
_NETWORKS_MAX: Final = 64
_POSITIVE: Final = (
    "handshake_timeout_s",
    "idle_timeout_s",
    "heartbeat_s",
    "login_timeout_s",
    "partial_frame_timeout_s",
    "stuck_timeout_s",
    "outbox_bytes_max",
    "held_frames_max",
    "texts_per_connection_max",
    "faulty_frames_per_minute",
    "publish_texts_max",
    "publish_bytes_max",
    "publish_batches_max",
    "publish_timeout_s",
    "call_timeout_s",
    "login_call_timeout_s",
    "max_file_bytes",
    "files_per_connection_max",
    "files_max",
    "file_idle_timeout_s",
)
_NOT_NEGATIVE: Final = (
    "connections_max",
    "anonymous_per_address_max",
    "text_rate",
    "text_burst",
    "command_rate",
    "command_burst",
    "drain_spread_s",
)


@dataclass(frozen=True, kw_only=True)
class EdgeConfig(ServiceConfig):
    """What the edge is told. Limits of 0 in `connections_max`, `anonymous_per_address_max` and rates mean none."""

    client_listen: str = "0.0.0.0:8888"
    client_certificate: Path
    client_key: Path
    auth_target: str
    rooms_targets: tuple[str, ...]

    # Connections. 10,000 take some 350 MiB.
    connections_max: int = 10_000
    anonymous_per_address_max: int = 64
    # Balancers in front: networks or addresses whose connections begin with a PROXY header, which is believed.
    proxy_networks: tuple[str, ...] = ()
    handshake_timeout_s: float = 5.0
    heartbeat_s: int = limits.HEARTBEAT_S
    idle_timeout_s: int = limits.IDLE_TIMEOUT_S
    login_timeout_s: float = 600.0  # people type
    partial_frame_timeout_s: float = 10.0
    stuck_timeout_s: float = 10.0
    outbox_bytes_max: int = 1_048_576  # some 7,000 messages: who is further behind reads history
    held_frames_max: int = 256  # more than any client pipelines before its login is answered
    faulty_frames_per_minute: int = 20

    # Rates, per user for texts and per connection for everything else.
    text_rate: float = 20.0
    text_burst: int = 100
    command_rate: float = 50.0
    command_burst: int = 200  # a client of many rooms asks for the members of each when it has logged in
    texts_per_connection_max: int = 1_024

    # Queues. Waiting texts are at most share_normal + share_low of 16 KiB each.
    concurrency: int = 64
    target_critical_s: float = DEFAULT_SETTINGS[QosClass.CRITICAL].target_s
    target_high_s: float = DEFAULT_SETTINGS[QosClass.HIGH].target_s
    target_normal_s: float = DEFAULT_SETTINGS[QosClass.NORMAL].target_s
    target_low_s: float = DEFAULT_SETTINGS[QosClass.LOW].target_s
    share_critical: int = DEFAULT_SETTINGS[QosClass.CRITICAL].share
    share_high: int = DEFAULT_SETTINGS[QosClass.HIGH].share
    share_normal: int = DEFAULT_SETTINGS[QosClass.NORMAL].share
    share_low: int = DEFAULT_SETTINGS[QosClass.LOW].share

    # Texts on their way to rooms: a window that is always full keeps rooms busy, and a larger one only makes it late.
    publish_texts_max: int = 2_048
    publish_bytes_max: int = 1_048_576  # with its names and ids a batch stays well below gRPC's 4 MiB
    publish_batches_max: int = 2
    publish_timeout_s: float = 10.0

    # Calls to auth and rooms. A login waits for its turn at the password checkers.
    call_timeout_s: float = 5.0
    login_call_timeout_s: float = 15.0

    drain_spread_s: float = 2.0  # clients come back spread over this time

    # Files. An upload takes up to a window and 1 MiB here, a download 1 MiB.
    max_file_bytes: int = 104_857_600  # what clients are told before rooms has said its own limit
    file_window_bytes: int = 1_048_576
    files_per_connection_max: int = 8  # each way at one time
    files_max: int = 64
    file_idle_timeout_s: float = 60.0  # a transfer in which nothing moves makes room for another

    classes: dict[QosClass, ClassSettings] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in _POSITIVE:
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: must be above 0")
        for key in _NOT_NEGATIVE:
            if not 0 <= getattr(self, key) <= _RATE_MAX:
                raise ValueError(f"{key}: must be 0 to {_RATE_MAX}")
        if not CONCURRENCY_MIN <= self.concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"concurrency: must be {CONCURRENCY_MIN} to {CONCURRENCY_MAX}")
        if self.file_window_bytes < limits.MAX_CHUNK_BYTES:
            raise ValueError(f"file_window_bytes: must be {limits.MAX_CHUNK_BYTES} or more, a chunk")
        if self.idle_timeout_s <= self.heartbeat_s:
            raise ValueError("idle_timeout_s: must be above heartbeat_s, or every client is idle")
        if not 1 <= len(self.rooms_targets) <= _ROOMS_MAX or len(set(self.rooms_targets)) < len(self.rooms_targets):
            raise ValueError(f"rooms_targets: 1 to {_ROOMS_MAX} rooms instances, each once")
        for target in self.rooms_targets:
            _check_address("rooms_targets", target)
        _check_networks(self.proxy_networks)
        _check_address("auth_target", self.auth_target)
        _check_address("client_listen", self.client_listen)
        object.__setattr__(self, "classes", {qos_class: self._class(qos_class) for qos_class in QosClass})

    def _class(self, qos_class: QosClass) -> ClassSettings:
        label = qos_class.label
        try:
            return ClassSettings(target_s=getattr(self, f"target_{label}_s"), share=getattr(self, f"share_{label}"))
        except ValueError as error:
            what, _, reason = str(error).partition(": ")
            key = f"target_{label}_s" if what == "target_s" else f"share_{label}"
            raise ValueError(f"{key}: {reason}") from None


def _check_networks(networks: tuple[str, ...]) -> None:
    if len(networks) > _NETWORKS_MAX:
        raise ValueError(f"proxy_networks: at most {_NETWORKS_MAX}")
    for network in networks:
        try:
            parse_network(network)
        except ValueError as error:
            raise ValueError(f"proxy_networks: {error}") from None


def _check_address(key: str, address: str) -> None:
    try:
        split_host_port(address)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
