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
