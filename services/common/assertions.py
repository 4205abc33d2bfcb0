"""Session assertions: auth's word, signed with Ed25519 (RFC 8032), that an edge may speak for a person for a while.

A certificate says that a process is an edge; it does not say whose connections that edge holds. So auth signs an
assertion for each session that it opens, the edge hands it on, and rooms acts for nobody without one. An assertion is

    version (1 byte) ‖ key id (8 bytes) ‖ signature (64 bytes) ‖ claims (JSON)

where the key id is the beginning of the public key's SHA-256 and the signature is over a constant and the claims, so
that it can never pass for a signature of something else. Keys come from files that are read again when they change:
auth has the one private key, whoever verifies has a file of public keys, the one in use and its predecessor.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from services.common.clock import Clock

METADATA_KEY: Final = "parley-assertion-bin"
"""The gRPC metadata in which an assertion accompanies a call."""

BYTES_MAX: Final = 1_024
"""Beyond any assertion of ours; bounds the work."""

KNOWN_MAX: Final = 20_000
"""Verified assertions that are remembered, some 600 bytes each: twice what a full edge holds."""

SKEW_S: Final = 5.0
"""By how much clocks of two machines may differ."""

_CHECK_S: Final = 1.0
_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_CLAIMS_AT: Final = 1 + _KEY_ID_BYTES + _SIGNATURE_BYTES
_CONTEXT: Final = b"parley session assertion 1\0"
_PUBLIC_KEY: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)

T = TypeVar("T")
_log = get_logger(__name__)


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asserted: the connection `session_id` of this person is held by this run of this edge. Unix seconds."""

    session_id: str
    user_id: str
    username: str
    edge: str
    boot_id: str
    issued_at: float
    expires_at: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Claims).decode


class KeyFile(Generic[T]):
    """A file of keys, read again when it has changed; one that cannot be used leaves the keys from before in use.

    Raises OSError, and ValueError which names the file, where it cannot be used at the beginning.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], clock: Clock) -> None:
        self._path = path
        self._parse = parse
        self._clock = clock
        self._state = self._stat()
        self._keys = self._read()
        self._looked_at = clock.monotonic()
        self._complaint = ""

    def keys(self, *, now: bool = False) -> T:
        """What is in use. The file is looked at once a second, or with `now` at once."""
        monotonic = self._clock.monotonic()
        if now or monotonic - self._looked_at >= _CHECK_S:
            self._looked_at = monotonic
            self._refresh()
        return self._keys

    def _refresh(self) -> None:
        try:
            state = self._stat()
            if state == self._state:
                return
            keys = self._read()
        except (OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("keys cannot be used: those from before stay in use", reason=str(error))
            return
        self._keys, self._state, self._complaint = keys, state, ""
        _log.info("keys were read again", file=str(self._path))

    def _stat(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _read(self) -> T:
        try:
            return self._parse(self._path.read_bytes())
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._path}: {error}") from error


def parse_private_key(pem: bytes) -> Ed25519PrivateKey:
    """The key of a PEM file. Raises ValueError or TypeError."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 private key")
    return key


def parse_public_keys(pem: bytes) -> dict[bytes, Ed25519PublicKey]:
    """The keys of a PEM file, by their ids. Raises ValueError."""
    keys: dict[bytes, Ed25519PublicKey] = {}
    for block in _PUBLIC_KEY.findall(pem):
        key = serialization.load_pem_public_key(block)
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("holds a key that is not Ed25519")
        keys[key_id(key)] = key
    if not keys:
        raise ValueError("holds no public key")
    return keys


def key_id(key: Ed25519PublicKey) -> bytes:
    """By which an assertion names the key that it was signed with."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:_KEY_ID_BYTES]


class Signer:
    """Signs claims with the private key of a file. Raises OSError and ValueError as KeyFile does."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = KeyFile(path, parse_private_key, clock)

    def sign(self, claims: Claims) -> bytes:
        """The assertion of these claims; some 40 µs."""
        key = self._file.keys()
        payload = _encode(claims)
        return _VERSION + key_id(key.public_key()) + key.sign(_CONTEXT + payload) + payload


class Verifier:
    """Verifies assertions with the public keys of a file, each assertion once: some 110 µs, and then a look-up."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = KeyFile(path, parse_public_keys, clock)
        self._clock = clock
        self._known: OrderedDict[bytes, Claims] = OrderedDict()
        self._known_with: Mapping[bytes, Ed25519PublicKey] = self._file.keys()

    def verify(self, assertion: bytes, *, may_be_expired: bool = False) -> Claims:
        """What it claims. Raises ParleyError not_authenticated where auth did not sign it, or too long ago."""
        keys = self._file.keys()
        if keys is not self._known_with:  # a key that was retired vouches for nobody any more
            self._known.clear()
            self._known_with = keys
        claims = self._known.get(assertion)
        if claims is None:
            claims = self._known[assertion] = self._check(assertion)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        now = self._clock.now()
        if claims.expires_at + SKEW_S < now and not may_be_expired:
            raise refused("has expired")
        return claims

    def _check(self, assertion: bytes) -> Claims:
        if not assertion:
            raise refused("is missing")
        if not _CLAIMS_AT < len(assertion) <= BYTES_MAX or assertion[:1] != _VERSION:
            raise refused("is not one")
        name = assertion[1 : 1 + _KEY_ID_BYTES]
        key = self._file.keys().get(name)
        if key is None:  # auth may have a new one since a moment
            self._known_with = self._file.keys(now=True)
            key = self._known_with.get(name)
        if key is None:
            raise refused("is signed with an unknown key")
        payload = assertion[_CLAIMS_AT:]
        try:
            key.verify(assertion[1 + _KEY_ID_BYTES : _CLAIMS_AT], _CONTEXT + payload)
            return _decode(payload)
        except InvalidSignature:
            raise refused("is forged") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise refused("claims something else") from None


def refused(reason: str) -> ParleyError:
    """The error of an assertion that does not allow what was asked."""
    return ParleyError(ErrorCode.NOT_AUTHENTICATED, f"the session's assertion {reason}")
