"""Certificate files in, gRPC credentials out: mutual TLS 1.3 on both ends.

A server notices new files by itself, at the next connection; a channel keeps what it was opened with and must be
opened again (a service that restarts does so).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from services import IS_GRPC_TLS_1_3_ONLY
from services.common.logs import get_logger

if TYPE_CHECKING:
    from services.common.config import ServiceConfig

_log = get_logger(__name__)


def server_credentials(config: ServiceConfig) -> grpc.ServerCredentials:
    """Credentials that demand a certificate of the client and follow the files as they change.

    Raises OSError where a file cannot be read.
    """
    _check_version()
    files = _CertificateFiles(config)
    return grpc.dynamic_ssl_server_credentials(files.load(), files.fetch, require_client_authentication=True)


def channel_credentials(config: ServiceConfig) -> grpc.ChannelCredentials:
    """Credentials that show the service's own certificate. Raises OSError where a file cannot be read."""
    _check_version()
    return grpc.ssl_channel_credentials(
        root_certificates=config.ca.read_bytes(),
        private_key=config.private_key.read_bytes(),
        certificate_chain=config.certificate.read_bytes(),
    )


def _check_version() -> None:
    if not IS_GRPC_TLS_1_3_ONLY:
        _log.warning("gRPC was imported before the services package, so it accepts TLS 1.2 too")


class _CertificateFiles:
    """The three files, read again when one of them has changed. Called by gRPC in threads of its own."""

    def __init__(self, config: ServiceConfig) -> None:
        self._private_key = config.private_key
        self._certificate = config.certificate
        self._ca = config.ca
        self._mutex = threading.Lock()
        self._state: object = None

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Reads the files."""
        state = self._stat()
        pair = (self._private_key.read_bytes(), self._certificate.read_bytes())
        configuration = grpc.ssl_server_certificate_configuration([pair], root_certificates=self._ca.read_bytes())
        self._state = state
        return configuration

    def fetch(self) -> Any:
        """The configuration for a new connection; None when that is the one which the last connection had."""
        with self._mutex:
            try:
                if self._stat() == self._state:
                    return None
                configuration = self.load()
            except OSError as error:  # in the middle of being replaced: what is in use stays in use
                _log.warning("certificates cannot be read again", exc_info=error)
                return None
            _log.info("certificates were read again")
            return configuration

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        stats = [path.stat() for path in (self._private_key, self._certificate, self._ca)]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)
