"""Certificate files of a process: checked as they are read, and read again as they are renewed.

There is one `CertificateFiles` for each set of files in a process, `files_of(…)`; servers, channels and gauges all look
at it, so that they agree about what is in use, and a renewal is in the log once. Whoever renews replaces one file
after the other, and may do so badly: what cannot be read, is cut short, does not fit together or belongs to somebody
else is not used. What was in use before stays in use, and the log says why.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.common.clock import Clock
    from services.common.config import ServiceConfig
    from services.common.counters import Counters

CHECK_S: Final = 1.0
"""How often the files are looked at: three calls of stat(2)."""

WARN_BEFORE_S: Final = 14 * 86_400.0
"""Before its end a certificate is in the log each day: time enough for whoever reads logs once a week."""

WARN_EVERY_S: Final = 86_400.0
_SECONDS_PER_DAY: Final = 86_400
_log = get_logger(__name__)


class CertificateError(ValueError):
    """Files that cannot be used; the message names the file and says why."""


@dataclass(frozen=True, eq=False)
class Certificates:
    """What the files held when they were read, in PEM. `not_after` has the end of each file's certificate in Unix
    seconds: of an authority the latest, because whoever knows the newer one does not need the older."""

    chain: bytes
    private_key: bytes = field(repr=False)
    authorities: bytes | None
    identity: tuple[str, ...]
    not_before: float
    not_after: Mapping[Path, float]


class CertificateFiles:
    """The files of one identity; `ca` verifies others, where there are others. Safe to use from any thread."""

    def __init__(self, certificate: Path, private_key: Path, ca: Path | None = None) -> None:
        self.certificate = certificate
        self.private_key = private_key
        self.ca = ca
        self._paths = tuple(path for path in (private_key, certificate, ca) if path is not None)
        self._mutex = threading.Lock()
        self._state = self._stat()
        self._current = self._read()
        self._complaint = ""

    @property
    def current(self) -> Certificates:
        """What is in use."""
        return self._current

    def refresh(self) -> Certificates:
        """Looks whether the files have changed, and returns what is in use from now on."""
        with self._mutex:
            try:
                state = self._stat()
                if state != self._state:
                    self._take(self._read(), state)
                elif self._complaint:
                    self._complaint = ""
                    _log.info("certificates are as they were", file=str(self.certificate))
            except (OSError, CertificateError) as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    _log.warning(
                        "certificates cannot be used: those from before stay in use",
                        file=str(self.certificate),
                        reason=str(error),
                    )
            return self._current

    def _take(self, new: Certificates, state: object) -> None:
        if self._stat() != state:
            return  # replaced while being read: the next look sees all of it
        if new.identity != self._current.identity:
            raise CertificateError(f"{self.certificate}: is of {_names(new)} and not of {_names(self._current)}")
        now = datetime.now(UTC).timestamp()
        if not new.not_before <= now < new.not_after[self.certificate]:
            raise CertificateError(f"{self.certificate}: is not valid at this time")
        self._current, self._state, self._complaint = new, state, ""
        _log.info(
            "certificates were read again", file=str(self.certificate), days_left=days_left(new, self.certificate, now)
        )

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        stats = [path.stat() for path in self._paths]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> Certificates:
        """Raises OSError and CertificateError."""
        chain, private_key = self.certificate.read_bytes(), self.private_key.read_bytes()
        authorities = None if self.ca is None else self.ca.read_bytes()
        leaf = _parse(self.certificate, chain)[0]
        try:
            key = load_pem_private_key(private_key, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{self.private_key}: is not a whole private key without a password") from error
        if key.public_key() != leaf.public_key():
            raise CertificateError(f"{self.private_key}: is not the key of {self.certificate}")
        not_after = {self.certificate: leaf.not_valid_after_utc.timestamp()}
        if self.ca is not None and authorities is not None:
            ends = [each.not_valid_after_utc.timestamp() for each in _parse(self.ca, authorities)]
            not_after[self.ca] = max(ends)
        return Certificates(
            chain=chain,
            private_key=private_key,
            authorities=authorities,
            identity=_identity(leaf),
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=not_after,
        )


@functools.lru_cache(maxsize=64)
def _shared(certificate: Path, private_key: Path, ca: Path | None) -> CertificateFiles:
    return CertificateFiles(certificate, private_key, ca)


def files_of(config: ServiceConfig) -> CertificateFiles:
    """The files of a service's identity, one object in the whole process. Raises OSError and CertificateError."""
    return _shared(config.certificate, config.private_key, config.ca)


async def watch(files: CertificateFiles, clock: Clock) -> None:
    """Looks after the files until cancelled: takes new ones, and warns each day of those that will end soon."""
    warned_at = float("-inf")
    while True:
        current = files.refresh()
        if clock.monotonic() - warned_at >= WARN_EVERY_S and warn_of_ends(current, clock.now()):
            warned_at = clock.monotonic()
        await clock.sleep(CHECK_S)


def warn_of_ends(certificates: Certificates, now: float) -> bool:
    """Logs each certificate that has ended or will end soon; returns whether there was one."""
    soon = {path: end for path, end in certificates.not_after.items() if end - now < WARN_BEFORE_S}
    for path in soon:
        left = days_left(certificates, path, now)
        if left < 0:
            _log.error("certificate has expired", file=str(path), days_left=left)
        else:
            _log.warning("certificate expires soon", file=str(path), days_left=left)
    return bool(soon)


def days_left(certificates: Certificates, path: Path, now: float) -> int:
    """Whole days until the end; below 0 behind it."""
    return int((certificates.not_after[path] - now) // _SECONDS_PER_DAY)


def report(counters: Counters, files: CertificateFiles) -> None:
    """Registers a gauge for each certificate."""
    for path in files.current.not_after:
        counters.gauge(
            "parley.certificate.not_after",
            "s",
            "When the certificate in use ends, in Unix time.",
            functools.partial(_not_after, files, path),
            attributes={"certificate": path.name},
        )


def _not_after(files: CertificateFiles, path: Path) -> float:
    return files.current.not_after[path]


def _parse(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(f"{path}: is not a whole certificate") from error


def _identity(leaf: x509.Certificate) -> tuple[str, ...]:
    """The SPIFFE URIs, by which services know each other; for clients there are none."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ()
    return tuple(sorted(names.get_values_for_type(x509.UniformResourceIdentifier)))


def _names(certificates: Certificates) -> str:
    return ", ".join(certificates.identity) or "nobody"
