"""Certificates made anew while a stack runs: identities, and the authorities themselves, with an overlap.

An authority is replaced in three steps, each of which leaves everything working:

1. `renew_authority`: a successor is trusted beside the one that there is, and signs from now on;
2. `renew`, once everybody has read the authorities again: the identities are signed by the successor;
3. `retire`: the old one is trusted no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.certificates import (
    Leaf,
    authority_paths,
    ensure_authority,
    locked,
    make_authority,
    read_certificates,
    sign_leaf,
    write_certificates,
    write_pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

AUTHORITIES: Final = ("client", "grpc", "storage")
SUFFIX: Final = "-cert.pem"
STORAGE: Final = "storage-"
"""Certificates of PostgreSQL and Redis are called that and the server's name."""

TRUST_S: Final = 5.0
"""How long a successor is to be trusted before it vouches for anybody: services look at their files each second."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One identity by its name in the directory: `auth`, `server`, `admin-NAME`, …"""

    name: str
    certificate: Path
    private_key: Path


def identities(directory: Path) -> list[Identity]:
    """The identities that have a certificate here, by name."""
    names = sorted(path.name.removesuffix(SUFFIX) for path in directory.glob(f"*{SUFFIX}"))
    return [_identity(directory, name) for name in names if not name.endswith("-ca")]


def renew(directory: Path, names: Iterable[str], *, now: datetime | None = None) -> list[Identity]:
    """Gives identities new keys and new certificates, which say what the old ones said. Raises OSError, ValueError."""
    now = now or datetime.now(UTC)
    known = {identity.name: identity for identity in identities(directory)}
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no identity {name!r}; there are: {', '.join(known) or 'none'}")
    with locked(directory):
        for name in wanted:
            _renew(directory, known[name], now)
    return [known[name] for name in wanted]


def renew_authority(directory: Path, name: str, *, now: datetime | None = None) -> Path:
    """Makes a successor of an authority, which is trusted beside it. Raises OSError, ValueError."""
    now = now or datetime.now(UTC)
    path, key_path = authority_paths(directory, _known_authority(name))
    if not path.exists():
        raise ValueError(f"there is no authority {name}-ca here")
    with locked(directory):
        present = ensure_authority(directory, name, now)
        if present.others:
            raise ValueError(f"{name}-ca is being replaced already: renew all identities, then retire the old one")
        certificate, key = make_authority(name, now)
        both = [certificate, present.certificate]
        # In this order: whoever comes between the two finds the old authority's key, and trusts both.
        write_certificates(path, both)
        write_pair(path, key_path, both, key)
    return path


def retire(directory: Path, name: str, *, now: datetime | None = None) -> int:
    """Ends the trust in all but the newest of an authority; returns how many went. Raises OSError, ValueError."""
    now = now or datetime.now(UTC)
    path, _ = authority_paths(directory, _known_authority(name))
    if not path.exists():
        raise ValueError(f"there is no authority {name}-ca here")
    with locked(directory):
        authority = ensure_authority(directory, name, now)
        for identity in identities(directory):
            certificate = read_certificates(identity.certificate)[0]
            if any(certificate.issuer == old.subject for old in authority.others):
                raise ValueError(f"{identity.name} is still vouched for by the old authority: renew it first")
        if authority.others:
            write_certificates(path, [authority.certificate])
    return len(authority.others)


def use_age_s(directory: Path, *, now: datetime | None = None) -> float:
    """For how long everybody could have read the newest certificate of an identity."""
    now = now or datetime.now(UTC)
    return now.timestamp() - max((each.certificate.stat().st_mtime for each in identities(directory)), default=0.0)


def trust_age_s(directory: Path, *, now: datetime | None = None) -> float:
    """For how long everybody could have read the newest successor of an authority."""
    now = now or datetime.now(UTC)
    paths = [authority_paths(directory, name)[0] for name in AUTHORITIES]
    changed = [path.stat().st_mtime for path in paths if path.exists() and len(read_certificates(path)) > 1]
    return now.timestamp() - max(changed, default=0.0)


def _identity(directory: Path, name: str) -> Identity:
    return Identity(name=name, certificate=directory / f"{name}{SUFFIX}", private_key=directory / f"{name}-key.pem")


def _known_authority(name: str) -> str:
    if name not in AUTHORITIES:
        known = ", ".join(f"{each}-ca" for each in AUTHORITIES)
        raise ValueError(f"there is no authority {name}-ca; there are: {known}")
    return name


def _renew(directory: Path, identity: Identity, now: datetime) -> None:
    leaf = _read_leaf(identity.certificate)
    authority = ensure_authority(directory, _authority_of(identity, leaf), now)
    key = ec.generate_private_key(ec.SECP256R1())
    write_pair(identity.certificate, identity.private_key, [sign_leaf(leaf, key, authority, now)], key)


def _authority_of(identity: Identity, leaf: Leaf) -> str:
    """Services show their certificates to servers, too; an edge shows another one to clients."""
    if identity.name.startswith(STORAGE):
        return "storage"
    return "grpc" if ExtendedKeyUsageOID.CLIENT_AUTH in leaf.usages else "client"


def _read_leaf(path: Path) -> Leaf:
    """What a certificate says. Raises OSError, ValueError."""
    try:
        certificate = read_certificates(path)[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        title = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    except (ValueError, IndexError, x509.ExtensionNotFound) as error:
        raise ValueError(f"{path} is not a certificate of this stack: `parley certs make` makes it anew") from error
    return Leaf(str(title), tuple(names), tuple(usages))
