"""Who is calling: SPIFFE identities as the certificates carry them.

An identity is the URI `spiffe://parley/<kind>` of a service or `spiffe://parley/admin/<name>` of an operator
(SPIFFE-ID section 2). TLS has verified the certificate before anything here runs; a certificate with no such URI, or
with more than one, has no identity, and whoever has none is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import grpc.aio

TRUST_DOMAIN: Final = "parley"
SERVICES: Final = frozenset({"edge", "auth", "rooms", "metrics"})
ADMIN: Final = "admin"
EDGE: Final = "edge"
KINDS: Final = SERVICES | {ADMIN}
# Names end up in file names and logs; 64 is room enough for a person or a host.
_ADMIN_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_PREFIX: Final = f"spiffe://{TRUST_DOMAIN}/"


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified peer: the kind that allow-lists name, and the operator's name where it is an admin."""

    kind: str
    name: str | None = None

    def __str__(self) -> str:
        return self.kind if self.name is None else f"{self.kind}/{self.name}"

    @property
    def uri(self) -> str:
        """The SPIFFE URI."""
        return f"{_PREFIX}{self}"


def is_admin_name(name: str) -> bool:
    """Whether an operator may have this name."""
    return _ADMIN_NAME.fullmatch(name) is not None


def parse_spiffe(uri: str) -> Identity | None:
    """The identity that a SPIFFE URI names; None for anything that is not exactly one of Parley's."""
    if not uri.startswith(_PREFIX):
        return None
    kind, separator, name = uri.removeprefix(_PREFIX).partition("/")
    if kind in SERVICES and not separator:
        return Identity(kind)
    if kind == ADMIN and is_admin_name(name):
        return Identity(kind, name)
    return None


def peer_identity(context: grpc.aio.ServicerContext[Any, Any]) -> Identity | None:
    """The identity of the caller of an RPC; None when its certificate does not carry exactly one."""
    properties = context.auth_context()
    uris = {_text(value) for value in properties.get("peer_spiffe_id", ())}
    if not uris:
        # gRPC fills peer_spiffe_id only when the URI is the only one; the plain names are all there.
        names = (_text(value) for value in properties.get("x509_subject_alternative_name", ()))
        uris = {name for name in names if name.startswith("spiffe://")}
    return parse_spiffe(uris.pop()) if len(uris) == 1 else None


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
