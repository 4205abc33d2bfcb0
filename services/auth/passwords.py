"""Passwords: which are accepted, how they are stored, how they are verified.

A stored hash reads `hmac-sha256-bcrypt$KEY$2b$ROUNDS$…`: base64 of HMAC-SHA-256(pepper, password), hashed with bcrypt.
The HMAC brings a password of any length and content (NUL too) to 44 bytes, where bcrypt alone reads 72 at most and
older ones stop at NUL; its key is the pepper. KEY names the pepper without revealing it, so that a wrong pepper file is
recognised instead of refusing everybody. Verification takes the password exactly as received: no normalisation.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import bcrypt

from services.auth.common_passwords import COMMON_PASSWORDS
from services.auth.names import canonical_username
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from services.auth.spare_time import Bcrypt

PASSWORD_CHARS_MIN = 8  # protocol.md, "Liveness, limits"
PASSWORD_CHARS_MAX = 128
ROUNDS_MIN = 4  # what bcrypt allows at least; for load tests only
ROUNDS_MAX = 16  # about 4 s of CPU; more would only deny service
_SCHEME = "hmac-sha256-bcrypt"
_KEY_ID_CHARS = 8  # 32 bits tell peppers apart and say nothing about a 256-bit key

# First guesses that the list of the most used ones does not have.
_OBVIOUS = frozenset({"0123456789", "12341234", "12344321", "letmeinn", "qwertyui", "qwertzuiop", "asdfghjk"})


class PepperMismatchError(Exception):
    """A stored hash was made with another pepper: the configuration is wrong, not the password."""


def check_new_password(password: str, *, username: str) -> None:
    """Refuses what is too short, too long, or the first thing that anyone would guess, as the most used ones are.
    Raises `ParleyError` weak_password. Existing accounts are not held to this."""
    if len(password) < PASSWORD_CHARS_MIN:
        raise _weak(f"a password has at least {PASSWORD_CHARS_MIN} characters")
    if len(password) > PASSWORD_CHARS_MAX:
        raise _weak(f"a password has at most {PASSWORD_CHARS_MAX} characters")
    folded = password.casefold()
    if folded in COMMON_PASSWORDS or folded in _OBVIOUS or len(set(password)) == 1:
        raise _weak("the password is too easy to guess")
    if canonical_username(password) == username:
        raise _weak("the password must not be the name")


class PasswordScheme:
    """Hashes and verifies. Every call takes the CPU time that `rounds` asks for, about 240 ms at 12, by `hashpw`."""

    def __init__(self, *, pepper: bytes, rounds: int, hashpw: Bcrypt | None = None) -> None:
        self._hashpw = hashpw or _hash_here
        self._pepper = pepper
        self._rounds = rounds
        self._prefix = f"{_SCHEME}${hashlib.sha256(pepper).hexdigest()[:_KEY_ID_CHARS]}"
        # bcrypt verifies by hashing with the stored salt and comparing, so any digest behind a salt will do.
        self._nobody = bcrypt.gensalt(rounds) + b"." * 31

    def hash(self, password: str) -> str:
        """A new stored hash."""
        digest = self._hashpw(self._prehash(password), bcrypt.gensalt(self._rounds))
        return self._prefix + digest.decode("ascii")

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password belongs to the stored hash. None stands for an unknown account: always False, after the
        same work. Raises `PepperMismatchError`."""
        if stored is None:
            self._hashpw(self._prehash(password), self._nobody)
            return False
        digest = self._digest_of(stored)
        return hmac.compare_digest(self._hashpw(self._prehash(password), digest), digest)

    def is_outdated(self, stored: str) -> bool:
        """True where the hash was made with another number of rounds than is wanted now."""
        rounds = self._digest_of(stored).split(b"$")[2]
        return int(rounds) != self._rounds

    def _digest_of(self, stored: str) -> bytes:
        if not stored.startswith(self._prefix + "$2"):
            raise PepperMismatchError
        return stored.removeprefix(self._prefix).encode("ascii")

    def _prehash(self, password: str) -> bytes:
        return base64.b64encode(hmac.digest(self._pepper, password.encode("utf-8"), "sha256"))


def _hash_here(password: bytes, salt: bytes) -> bytes:
    return bcrypt.hashpw(password, salt)


def _weak(message: str) -> ParleyError:
    return ParleyError(ErrorCode.WEAK_PASSWORD, message)
