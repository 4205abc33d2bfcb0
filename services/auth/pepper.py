"""The pepper: the secret that is mixed into every password before it is hashed.

It lives in a file of its own, never in the database, so that a stolen database alone gives nothing to guess at. For the
same reason its loss is final: with another pepper no password matches any more. So a missing file is made only while
there is no account that could depend on it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from services.auth.passwords import PasswordScheme
from services.common.config import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from services.auth.accounts import AccountStore
    from services.auth.config import AuthConfig
    from services.auth.spare_time import Bcrypt

PEPPER_BYTES_MIN = 32  # HMAC-SHA-256 keys below the digest's size weaken it (RFC 2104, 3)
PEPPER_BYTES_MAX = 4096  # a pepper is a key; a larger file is a mistake in the configuration


def load_pepper(path: Path, *, may_create: bool) -> bytes:
    """The pepper in the file, byte for byte. A missing file is made (mode 0600) where `may_create` says that nothing
    depends on it yet. Raises ValueError with the reason, which never holds what the file says."""
    if not path.exists():
        if not may_create:
            raise ValueError(f"pepper_file: {path} is missing, and the accounts in the database depend on it")
        _create(path)
    try:
        pepper = path.read_bytes()
    except OSError as error:
        raise ValueError(f"pepper_file: {path} cannot be read: {error.strerror}") from error
    if not PEPPER_BYTES_MIN <= len(pepper) <= PEPPER_BYTES_MAX:
        raise ValueError(f"pepper_file: {path} must hold {PEPPER_BYTES_MIN} to {PEPPER_BYTES_MAX} bytes")
    return pepper


def _create(path: Path) -> None:
    """Whole or not at all, also when two instances start at once or the machine stops half way: the first link wins."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(PEPPER_BYTES_MIN))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ValueError(f"pepper_file: {path} cannot be made: {error.strerror}") from error


async def open_scheme(config: AuthConfig, store: AccountStore, hashpw: Bcrypt) -> PasswordScheme:
    """The scheme with the installation's pepper, which is made while there are no accounts. Raises ConfigError."""
    try:
        pepper = load_pepper(config.pepper_path, may_create=await store.count_accounts() == 0)
    except ValueError as error:
        raise ConfigError("pepper_file", str(error).removeprefix("pepper_file: ")) from error
    return PasswordScheme(pepper=pepper, rounds=config.bcrypt_rounds, hashpw=hashpw)
