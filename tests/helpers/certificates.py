"""Certificates for tests: one set, made once per test process, in a directory that goes when the process ends.

    material = certificates.shared()
    config = material.config("auth", tmp_path)          # a ServiceConfig with the auth service's identity
    pair = material.pair("admin/alice")                 # (certificate, private key) of any identity

`foreign()` is an authority that nobody trusts, with the same identities.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deploy.local import certificates
from services.common.config import ServiceConfig

C = TypeVar("C", bound=ServiceConfig)


@dataclass(frozen=True)
class Material:
    """The files of one installation."""

    directory: Path
    paths: certificates.Paths

    @property
    def client_ca(self) -> Path:
        """What clients trust."""
        return self.paths.client_ca

    @property
    def grpc_ca(self) -> Path:
        """What services trust."""
        return self.paths.grpc_ca

    @property
    def server(self) -> tuple[Path, Path]:
        """What clients see of an edge: certificate and private key, for localhost, 127.0.0.1 and ::1."""
        return self.paths.server_certificate, self.paths.server_key

    def pair(self, identity: str) -> tuple[Path, Path]:
        """Certificate and private key of `edge`, `auth`, `rooms`, `metrics` or `admin/NAME`."""
        kind, _, name = identity.partition("/")
        return certificates.make_admin(self.directory, name) if kind == "admin" else self.paths.services[kind]

    def settings(self, identity: str, home: Path) -> dict[str, Any]:
        """The fields that every ServiceConfig needs, to be passed on to a service's own configuration class."""
        certificate, key = self.pair(identity)
        return {
            "name": identity.replace("/", "-") + "-1",
            "certificate": certificate,
            "private_key": key,
            "ca": self.grpc_ca,
            "home": home,
        }

    def config(self, identity: str, home: Path, **changes: Any) -> ServiceConfig:
        """A plain ServiceConfig with that identity."""
        return self.make(ServiceConfig, identity, home, **changes)

    def make(self, cls: type[C], identity: str, home: Path, **changes: Any) -> C:
        """A service's own configuration with that identity."""
        return cls(**{**self.settings(identity, home), **changes})


@functools.cache
def shared() -> Material:
    """The certificates that the services of a test trust."""
    return _make()


@functools.cache
def foreign() -> Material:
    """The same identities, vouched for by an authority that is not trusted."""
    return _make()


def _make() -> Material:
    directory = Path(tempfile.mkdtemp(prefix="parley-test-certificates-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Material(directory, certificates.ensure_stack(directory))
