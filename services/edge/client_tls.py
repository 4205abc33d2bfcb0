"""TLS as clients get it: version 1.3 only, with a certificate that may be renewed while the edge serves.

Each handshake takes the newest context; connections that are there keep theirs for as long as they live.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from services.common.certificates import CertificateFiles, report, watch
from services.common.clock import Clock
from services.common.counters import Counters
from services.common.logs import get_logger

ALPN: Final = "parley/2"

_log = get_logger(__name__)


def server_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """TLS settings with that certificate. Raises OSError or ssl.SSLError where the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, private_key)
    context.set_alpn_protocols([ALPN])
    context.num_tickets = 0  # nobody uses them, and each costs a signature's worth of bytes
    return context


class ClientTls:
    """The certificate that clients see, and the context made of it. Raises OSError and ValueError."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        self._files = CertificateFiles(certificate, private_key)
        self._used = self._files.current
        self._context = server_context(certificate, private_key)

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        current = self._files.current
        if current is not self._used:
            try:
                self._context = server_context(self._files.certificate, self._files.private_key)
            except (OSError, ssl.SSLError) as error:  # replaced once more since they were found good
                _log.warning("certificates cannot be used yet", reason=str(error))
            else:
                self._used = current
        return self._context

    async def watch(self, clock: Clock) -> None:
        """Look after the files until cancelled."""
        await watch(self._files, clock)

    def report(self, counters: Counters) -> None:
        """Register the gauge of the certificate's end."""
        report(counters, self._files)
