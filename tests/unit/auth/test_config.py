"""The configuration: defaults, what the benchmark changes, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.auth.config import AuthConfig
from services.common.config import ConfigError, load

REQUIRED = {
    "PARLEY_AUTH_NAME": "auth-1",
    "PARLEY_AUTH_CERTIFICATE": "c.pem",
    "PARLEY_AUTH_PRIVATE_KEY": "k.pem",
    "PARLEY_AUTH_CA": "ca.pem",
    "PARLEY_AUTH_HOME": "/srv/parley",
}


def make(file: Path | None = None, **environ: str) -> AuthConfig:
    return load(AuthConfig, service="auth", file=file, environ={**REQUIRED, **environ})


def test_defaults() -> None:
    config = make()
    assert config.storage_url == "sqlite:////srv/parley/data/auth.db"
    assert config.pepper_path == Path("/srv/parley/data/auth-pepper")
    assert config.bcrypt_rounds == 12
    assert config.throttle
    assert config.lease_s == 15
    assert config.token_ttl_s == 600
    assert config.hash_queue_max >= 256
    assert config.hash_thread_count >= 1


def test_files_and_variables_are_read(tmp_path: Path) -> None:
    file = tmp_path / "bench.toml"
    file.write_text("[auth]\nbcrypt_rounds = 4\nthrottle = false\n")
    config = make(file, PARLEY_AUTH_DATABASE_URL="sqlite:///x.db", PARLEY_AUTH_PEPPER_FILE="p", PARLEY_AUTH_LEASE_S="2")
    assert (config.bcrypt_rounds, config.throttle) == (4, False)
    assert (config.storage_url, config.pepper_path, config.lease_s) == ("sqlite:///x.db", Path("p"), 2.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BCRYPT_ROUNDS", "3"),
        ("BCRYPT_ROUNDS", "17"),
        ("BCRYPT_ROUNDS", "twelve"),
        ("HASH_WORKERS", "-1"),
        ("HASH_WORKERS", "65"),
        ("HASH_QUEUE_MAX", "0"),
        ("THROTTLE", "perhaps"),
        ("REGISTRATION_BURST", "0"),
        ("REGISTRATION_INTERVAL_S", "0"),
        ("LEASE_S", "0.5"),
        ("LEASE_S", "nan"),
        ("TOKEN_TTL_S", "-1"),
        ("PEPPER", "secret"),
    ],
)
def test_bad_values_and_unknown_keys_are_named(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**{f"PARLEY_AUTH_{key}": value})
    assert caught.value.key == f"PARLEY_AUTH_{key}"
