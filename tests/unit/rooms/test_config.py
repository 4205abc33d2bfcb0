"""The configuration of rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.config import ConfigError, load
from services.rooms.config import RoomsConfig

REQUIRED = {
    "PARLEY_ROOMS_CERTIFICATE": "c.pem",
    "PARLEY_ROOMS_PRIVATE_KEY": "k.pem",
    "PARLEY_ROOMS_CA": "ca.pem",
    "PARLEY_ROOMS_HOME": "home",
}


def made(**changes: str) -> RoomsConfig:
    environ = REQUIRED | {f"PARLEY_ROOMS_{key.upper()}": value for key, value in changes.items()}
    return load(RoomsConfig, service="rooms", file=None, environ=environ)


def test_the_database_is_in_the_home_unless_said_otherwise() -> None:
    assert made().url == f"sqlite:///{Path('home/data/rooms.db')}"
    assert made(database_url="sqlite:///elsewhere.db").url == "sqlite:///elsewhere.db"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rooms_per_owner_max", "0"),
        ("rooms_per_member_max", "-1"),
        ("publish_queue_max", "0"),
        ("stream_bytes_max", "0"),
        ("follows_max", "0"),
        ("presence_crowd", "0"),
        ("presence_grace_s", "-0.1"),
        ("publish_queue_max", "many"),
    ],
)
def test_a_bad_value_is_named(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**{key: value})
    assert caught.value.key == f"PARLEY_ROOMS_{key.upper()}"


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("redis_url", {"redis_url": "http://cache"}),
        ("redis_url", {"redis_url": "redis://cache", "database_url": "sqlite:///rooms.db"}),
        ("redis_password_file", {"redis_url": "redis://cache", "redis_password_file": "/no/such"}),
        ("redis_ca_file", {"redis_url": "rediss://cache", "redis_ca_file": "/no/such"}),
        ("database_password_file", {"database_password_file": "/no/such"}),
        ("database_ca_file", {"database_ca_file": "/no/such"}),
    ],
)
def test_a_server_that_cannot_be_used_is_named(key: str, changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**{"database_url": "postgresql://db/parley", **changes})
    assert caught.value.key == f"PARLEY_ROOMS_{key.upper()}"


def test_redis_is_shared_by_its_database() -> None:
    config = made(database_url="postgresql://db/parley", redis_url="redis://:hunter2@cache/7", name="rooms-3")
    assert config.redis_access is not None
    assert (config.redis_access.name, config.redis_access.scoped("x")) == ("rooms-3", "parley:7:x")
    assert "hunter2" not in repr(config)
    assert made().redis_access is None
