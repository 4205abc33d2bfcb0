"""Certificates for tests: one set, made once per test process, in a directory that goes when the process ends.

    material = certificates.shared()
    config = material.config("auth", tmp_path)          # a ServiceConfig with the auth service's identity
    pair = material.pair("admin/alice")                 # (certificate, private key) of any identity

`foreign()` is an authority that nobody trusts, with the same identities. For certificates that the stack would not make
there are `make_authority` and `make_certificate`.
"""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import ipaddress
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.local import assertion_keys, certificates
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

    @property
    def assertion_keys(self) -> assertion_keys.Keys:
        """The keys of session assertions: what auth signs with, and what the others verify with."""
        return assertion_keys.ensure(self.directory)

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


DAY: Final = dt.timedelta(days=1)
FROM_NOW: Final = (dt.timedelta(minutes=-5), DAY)
"""When a certificate begins and ends to be valid, from now."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority; `file` is its certificate."""

    file: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(folder: Path, name: str = "test authority") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name.replace(' ', '-')}.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(file, certificate, key)


def load_authority(certificate: Path, key: Path) -> Authority:
    """An authority that is there already."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return Authority(certificate, x509.load_pem_x509_certificate(certificate.read_bytes()), private)


def make_certificate(
    folder: Path,
    authority: Authority,
    *,
    dns: list[str],
    addresses: list[str] | None = None,
    uri: str | None = None,
    name: str = "server",
    valid: tuple[dt.timedelta, dt.timedelta] = FROM_NOW,
) -> tuple[Path, Path]:
    """Writes a certificate and its key; returns both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in dns]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses or []]
    names += [x509.UniformResourceIdentifier(uri)] if uri else []
    issuer = authority.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    certificate = (
        _builder(name, str(issuer), key, valid)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}-cert.pem", folder / f"{name}-key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def _builder(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    valid: tuple[dt.timedelta, dt.timedelta] = FROM_NOW,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
