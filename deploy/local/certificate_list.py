"""What `parley certs show` shows: every certificate of a stack, whose it is, and how long it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509

from deploy.local.certificates import RENEW_BEFORE, read_certificates, read_pair
from deploy.local.renewal import AUTHORITIES, identities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GOOD: Final = "good"
SOON: Final = "expires soon"
_SPIFFE: Final = "spiffe://"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One certificate. `state` is `good`, `expires soon`, or what is wrong with it; then the rest may be empty."""

    name: str
    file: str
    state: str
    subject: str = ""
    spiffe_id: str = ""
    names: tuple[str, ...] = ()
    issuer: str = ""
    not_after: str = ""
    days_left: int | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it serves today."""
        return self.state in (GOOD, SOON)


def read(directory: Path, *, now: datetime | None = None) -> list[Entry]:
    """The authorities, each with those that are only trusted still, then the identities. Raises OSError."""
    now = now or datetime.now(UTC)
    entries: list[Entry] = []
    for name in AUTHORITIES:
        path, key = directory / f"{name}-ca-cert.pem", directory / f"{name}-ca-key.pem"
        if path.exists():
            entries += _authority(f"{name}-ca", path, key, now)
    for identity in identities(directory):
        entries.append(_entry(identity.name, identity.certificate, identity.private_key, now))
    return entries


def table(entries: Sequence[Entry]) -> str:
    """The entries as people read them."""
    rows = [("NAME", "SUBJECT", "IDENTITY", "EXPIRES", "DAYS LEFT", "STATE")]
    for entry in entries:
        days = "" if entry.days_left is None else str(entry.days_left)
        who = entry.spiffe_id or ", ".join(entry.names)
        rows.append((entry.name, entry.subject, who, entry.not_after[:10], days, entry.state))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _authority(name: str, path: Path, key: Path, now: datetime) -> list[Entry]:
    found = read_pair(path, key)
    try:
        every = read_certificates(path)
    except ValueError:
        return [Entry(name=name, file=str(path), state="is not a whole certificate")]
    signing = None if found is None else found[0]
    entries = []
    for certificate in every:
        is_signing = certificate == signing
        state = _state(certificate, now) if is_signing or signing is not None else "has lost its key"
        title = name if is_signing or signing is None else f"{name} (only trusted)"
        entries.append(_describe(title, path, certificate, state, now))
    return entries


def _entry(name: str, path: Path, key: Path, now: datetime) -> Entry:
    try:
        certificate = read_certificates(path)[0]
    except ValueError:
        return Entry(name=name, file=str(path), state="is not a whole certificate")
    fits = read_pair(path, key) is not None
    return _describe(name, path, certificate, _state(certificate, now) if fits else "key does not fit", now)


def _state(certificate: x509.Certificate, now: datetime) -> str:
    if now > certificate.not_valid_after_utc:
        return "expired"
    if now < certificate.not_valid_before_utc:
        return "not valid yet"
    return SOON if now > certificate.not_valid_after_utc - RENEW_BEFORE else GOOD


def _describe(name: str, path: Path, certificate: x509.Certificate, state: str, now: datetime) -> Entry:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        every: list[str] = []
    else:
        every = [str(each.value) for each in names]
    uris = [each for each in every if each.startswith(_SPIFFE)]
    return Entry(
        name=name,
        file=str(path),
        state=state,
        subject=certificate.subject.rfc4514_string(),
        spiffe_id=uris[0] if uris else "",
        names=tuple(each for each in every if each not in uris),
        issuer=certificate.issuer.rfc4514_string(),
        not_after=certificate.not_valid_after_utc.isoformat(),
        days_left=(certificate.not_valid_after_utc - now) // timedelta(days=1),
    )
