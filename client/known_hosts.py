"""Servers that a person decided to trust: one line each, `host:port sha256:HEX`, in ~/.config/parley/known_hosts."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from client.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.address import Address

_LINE = re.compile(r"(?P<address>\S+)\s+sha256:(?P<fingerprint>[0-9a-f]{64})\Z")


def default_path(environ: Mapping[str, str]) -> Path:
    """Where the file is, by the XDG base directory specification."""
    configured = environ.get("XDG_CONFIG_HOME", "")
    # The specification says that a relative path there is to be ignored.
    base = Path(configured) if configured.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".config"
    return base / "parley" / "known_hosts"


class KnownHosts:
    """The file; read anew for every question, so that several clients can share it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fingerprint(self, address: Address) -> str | None:
        """The certificate that is trusted for an address: SHA-256, 64 hexadecimal digits.

        Raises TrustError where a line cannot be read: guessing would mean to trust less than was decided.
        """
        return self._read().get(str(address))

    def trust(self, address: Address, fingerprint: str) -> None:
        """Adds or replaces a decision. Raises TrustError where it cannot be written down."""
        try:
            self._write({**self._read(), str(address): fingerprint})
        except OSError as error:
            raise TrustError(f"{self.path}: {error.strerror}") from error

    def _write(self, entries: dict[str, str]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A temporary file and a rename: a crash leaves the old file or the new one, never half of one.
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix="known_hosts.")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.writelines(f"{name} sha256:{digest}\n" for name, digest in sorted(entries.items()))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _read(self) -> dict[str, str]:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise TrustError(f"{self.path}: {error.strerror}") from error
        entries: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.match(line.strip())
            if match is None:
                raise TrustError(f"{self.path}, line {number}: expected `host:port sha256:` and 64 hexadecimal digits")
            entries[match["address"]] = match["fingerprint"]
        return entries
