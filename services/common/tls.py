"""Certificates in, gRPC credentials out: mutual TLS 1.3 on both ends.

A server takes renewed certificates by itself, at the next connection; for channels see `renewing_channel`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from services import IS_GRPC_TLS_1_3_ONLY
from services.common.certificates import files_of
from services.common.logs import get_logger

if TYPE_CHECKING:
    from services.common.certificates import CertificateFiles, Certificates
    from services.common.config import ServiceConfig

_log = get_logger(__name__)


def server_credentials(config: ServiceConfig) -> grpc.ServerCredentials:
    """Credentials that demand a certificate of the client and follow the files as they change.

    Raises OSError where a file cannot be read, CertificateError where it cannot be used.
    """
    _check_version()
    fetcher = _Fetcher(files_of(config))
    return grpc.dynamic_ssl_server_credentials(fetcher.first(), fetcher.fetch, require_client_authentication=True)


def channel_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """Credentials that show the service's own certificate."""
    _check_version()
    return grpc.ssl_channel_credentials(
        root_certificates=certificates.authorities,
        private_key=certificates.private_key,
        certificate_chain=certificates.chain,
    )


def _check_version() -> None:
    if not IS_GRPC_TLS_1_3_ONLY:
        _log.warning("gRPC was imported before the services package, so it accepts TLS 1.2 too")


class _Fetcher:
    """Gives gRPC the certificates for each new connection. Called in threads of gRPC's own."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._mutex = threading.Lock()
        self._given = files.current

    def first(self) -> grpc.ServerCertificateConfiguration:
        """The configuration to begin with."""
        return _configuration(self._given)

    def fetch(self) -> Any:
        """The configuration for a new connection; None when that is the one which the last connection had."""
        with self._mutex:
            current = self._files.refresh()
            if current is self._given:
                return None
            self._given = current
            return _configuration(current)


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.private_key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=certificates.authorities)
