"""The keys of session assertions: one private key, for auth, and a file of public keys, for whoever verifies.

The public file holds the key in use first and its predecessor behind it, so that what was signed before a renewal is
believed until it expires.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deploy.local.certificates import locked, replace_file
from services.common.assertions import key_id, parse_private_key, parse_public_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "assertions"
"""What `parley certs renew` and `retire` call them."""


LIFE_S: Final = 905.0
"""For how long what a key has signed may be shown: `assertion_ttl_s` of auth, and what clocks may differ by."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Where the two files are."""

    private: Path
    public: Path


def paths(directory: Path) -> Keys:
    """The files of a stack."""
    return Keys(private=directory / "assertion-key.pem", public=directory / "assertion-public.pem")


def ensure(directory: Path) -> Keys:
    """Makes what is missing. Raises OSError, and ValueError where a file is there and cannot be used."""
    files = paths(directory)
    with locked(directory):
        if not files.private.exists():
            _write_private(files, Ed25519PrivateKey.generate())
        key = _private(files)
        known = _public(files) if files.public.exists() else []
        if key_id(key.public_key()) not in map(key_id, known):
            _write_public(files, [key.public_key(), *known[:1]])
    return files


def trust_successor(directory: Path) -> Ed25519PrivateKey:
    """The first half of a renewal: a new key, which everybody trusts from now on and nobody signs with yet. Raises
    OSError, ValueError."""
    files = ensure(directory)
    successor = Ed25519PrivateKey.generate()
    with locked(directory):
        _write_public(files, [successor.public_key(), _private(files).public_key()])
    return successor


def use(directory: Path, successor: Ed25519PrivateKey) -> Path:
    """The second half: auth signs with it from now on. Raises OSError."""
    files = paths(directory)
    with locked(directory):
        _write_private(files, successor)
    return files.private


def use_age_s(directory: Path) -> float:
    """For how long the key in use has been that."""
    return time.time() - paths(directory).private.stat().st_mtime


def retire(directory: Path) -> int:
    """Ends the trust in all keys but the one in use; returns how many went. Raises OSError, ValueError."""
    files = ensure(directory)
    with locked(directory):
        key = _private(files).public_key()
        count = len(_public(files)) - 1
        if count:
            _write_public(files, [key])
    return count


def _private(files: Keys) -> Ed25519PrivateKey:
    try:
        return parse_private_key(files.private.read_bytes())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{files.private}: {error}") from error


def _public(files: Keys) -> list[Ed25519PublicKey]:
    try:
        return list(parse_public_keys(files.public.read_bytes()).values())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{files.public}: {error}") from error


def _write_private(files: Keys, key: Ed25519PrivateKey) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace_file(files.private, key.private_bytes(*form), 0o600)


def _write_public(files: Keys, keys: Sequence[Ed25519PublicKey]) -> None:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    replace_file(files.public, b"".join(key.public_bytes(*form) for key in keys), 0o644)
