from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.common.config import ConfigError, load
from services.edge.config import EdgeConfig
from services.edge.qos.classes import QosClass

REQUIRED = {
    "NAME": "edge-1",
    "CERTIFICATE": "c.pem",
    "PRIVATE_KEY": "k.pem",
    "CA": "ca.pem",
    "HOME": "/srv/parley",
    "CLIENT_CERTIFICATE": "s.pem",
    "CLIENT_KEY": "sk.pem",
    "AUTH_TARGET": "127.0.0.1:50051",
    "ROOMS_TARGETS": "127.0.0.1:50052",
}


def loaded(**changes: str) -> EdgeConfig:
    environ = {f"PARLEY_EDGE_{key.upper()}": value for key, value in {**REQUIRED, **changes}.items()}
    return load(EdgeConfig, service="edge", file=None, environ=environ)


def test_the_defaults_are_the_protocols() -> None:
    config = loaded()
    assert (config.heartbeat_s, config.idle_timeout_s, config.handshake_timeout_s) == (30, 60, 5.0)
    assert (config.login_timeout_s, config.partial_frame_timeout_s) == (600.0, 10.0)
    assert (config.text_rate, config.text_burst, config.faulty_frames_per_minute) == (20.0, 100, 20)
    assert (config.anonymous_per_address_max, config.outbox_bytes_max) == (64, 1_048_576)
    assert config.rooms_targets == ("127.0.0.1:50052",)
    assert config.classes[QosClass.CRITICAL].target_s == 0


def test_classes_are_made_of_their_settings() -> None:
    config = loaded(target_low_s="2.5", share_normal="77")
    assert config.classes[QosClass.LOW].target_s == 2.5
    assert config.classes[QosClass.NORMAL].share == 77


def test_limits_may_be_lifted() -> None:
    config = loaded(text_rate="0", command_rate="0", connections_max="0", anonymous_per_address_max="0")
    assert config.text_rate == config.connections_max == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client_listen", "8888"),
        ("auth_target", "nowhere"),
        ("rooms_targets", ""),
        ("rooms_targets", "a:1,a:1"),
        ("concurrency", "0"),
        ("concurrency", "100000"),
        ("target_low_s", "-1"),
        ("share_high", "0"),
        ("text_rate", "-1"),
        ("outbox_bytes_max", "0"),
        ("idle_timeout_s", "30"),
        ("publish_batches_max", "0"),
    ],
)
def test_bad_values_are_named(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**{key: value})
    assert key.upper() in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="client_key"):
        load(
            EdgeConfig,
            service="edge",
            file=None,
            environ={f"PARLEY_EDGE_{k}": v for k, v in REQUIRED.items() if k != "CLIENT_KEY"},
        )


def test_nothing_else_may_be_set(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text("[edge]\nclasses = 1\n")
    values: dict[str, Any] = {f"PARLEY_EDGE_{key}": value for key, value in REQUIRED.items()}
    with pytest.raises(ConfigError, match="classes"):
        load(EdgeConfig, service="edge", file=file, environ=values)
