"""Identifiers and tokens: random, from the operating system, in the alphabets that the protocol names."""

from __future__ import annotations

import hashlib
import secrets
import string

_ALPHABET = string.ascii_lowercase + string.digits
# 62 bits: two of a hundred million accounts share an id with a chance of 0.1 %, and then one registration fails.
USER_ID_CHARS = 12
# 103 bits. Session ids are no secrets: they only mean something between the services.
SESSION_ID_CHARS = 20
TOKEN_BYTES = 32  # 256 bits: beyond any guessing, so a plain hash is enough to store


def new_user_id() -> str:
    """8 to 16 lower-case letters and digits, as the protocol promises."""
    return _random(USER_ID_CHARS)


def new_session_id() -> str:
    """Names one login; never used again."""
    return _random(SESSION_ID_CHARS)


def new_token() -> str:
    """256 random bits as base64url, 43 characters. A secret: never stored, never logged."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_token(token: str) -> bytes:
    """What is stored of a token. SHA-256 without salt, because a token cannot be guessed from a list."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
