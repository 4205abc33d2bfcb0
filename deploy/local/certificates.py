"""The certificates of a stack on one machine: two authorities, and the identities that they vouch for.

Clients trust one authority, services another, so that nothing that a client-facing key can do, and no certificate that
a client may ever be given, counts as a service. Everything is made on first use and kept while it is good; a leaf is
made anew before it expires. Files appear whole or not at all, and a certificate that does not match its key (a crash
came between the two) is made again.

The file of an authority may hold several of them: everybody trusts all, and the one whose key is beside it signs.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import socket
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.common.identity import ADMIN, SERVICES, Identity, is_admin_name
from services.common.rpc_client import internal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

CA_LIFE: Final = timedelta(days=3_650)  # replacing it means telling every client; nobody should have to
LEAF_LIFE: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=30)  # a stack that starts once a month never runs into an expiry
_BACKDATED: Final = timedelta(hours=1)  # for clients whose clocks are behind

_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
_LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the files of a stack are. Pairs are (certificate, private key)."""

    client_ca: Path
    grpc_ca: Path
    services: Mapping[str, tuple[Path, Path]]
    server_certificate: Path
    server_key: Path


@dataclass(frozen=True)
class Authority:
    """The one that signs, and the file in which others trust it. `others` are trusted too, for a while."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: Path
    others: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True)
class Leaf:
    """What a certificate says."""

    common_name: str
    names: tuple[x509.GeneralName, ...]
    usages: tuple[x509.ObjectIdentifier, ...]


def ensure_stack(directory: Path, *, hosts: tuple[str, ...] = (), now: datetime | None = None) -> Paths:
    """Makes what is missing or about to expire in `directory`, and says where everything is.

    `hosts` are further names and addresses by which clients reach the edges. Raises OSError, and ValueError for a
    host that cannot stand in a certificate and for an authority that has lost its key.
    """
    now = now or datetime.now(UTC)
    server = Leaf("Parley", _server_names(hosts), (_SERVER,))
    with locked(directory):
        client_ca = ensure_authority(directory, "client", now)
        grpc_ca = ensure_authority(directory, "grpc", now)
        services = {name: _ensure_leaf(directory, name, _service_leaf(name), grpc_ca, now) for name in sorted(SERVICES)}
        server_certificate, server_key = _ensure_leaf(directory, "server", server, client_ca, now)
    return Paths(
        client_ca=client_ca.path,
        grpc_ca=grpc_ca.path,
        services=services,
        server_certificate=server_certificate,
        server_key=server_key,
    )


def make_admin(directory: Path, name: str, *, now: datetime | None = None) -> tuple[Path, Path]:
    """An operator's certificate and private key, made unless they are there. Raises OSError, ValueError."""
    if not is_admin_name(name):
        raise ValueError(
            f"an operator's name has 1 to 64 of a-z 0-9 . _ - and begins and ends with one of a-z 0-9: {name!r}"
        )
    now = now or datetime.now(UTC)
    identity = Identity(ADMIN, name)
    leaf = Leaf(str(identity), (x509.UniformResourceIdentifier(identity.uri),), (_CLIENT,))
    with locked(directory):
        grpc_ca = ensure_authority(directory, "grpc", now)
        return _ensure_leaf(directory, f"admin-{name}", leaf, grpc_ca, now)


def ensure_storage(
    directory: Path, names: Iterable[str], *, now: datetime | None = None
) -> tuple[Path, dict[str, tuple[Path, Path]]]:
    """An authority for servers that are not ours (PostgreSQL, Redis), and a certificate for each host name.

    It is their own, so that no key of theirs counts as a service or as an edge. Raises OSError, ValueError.
    """
    now = now or datetime.now(UTC)
    with locked(directory):
        authority = ensure_authority(directory, "storage", now)
        leaves = {name: Leaf(name, tuple(_host_names(name)), (_SERVER,)) for name in names}
        return authority.path, {
            name: _ensure_leaf(directory, f"storage-{name}", leaf, authority, now) for name, leaf in leaves.items()
        }


def _service_leaf(service: str) -> Leaf:
    identity = Identity(service)
    names = (
        x509.UniformResourceIdentifier(identity.uri),
        x509.DNSName("localhost"),
        x509.DNSName(internal_name(service)),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in _LOOPBACK),
    )
    return Leaf(str(identity), names, (_CLIENT, _SERVER))


def _server_names(hosts: tuple[str, ...]) -> tuple[x509.GeneralName, ...]:
    own = []
    with contextlib.suppress(ValueError):  # a machine's name may be anything
        own = _host_names(socket.gethostname())
    names = [*_host_names("localhost"), *own]
    for host in (*_LOOPBACK, *hosts):
        names += _host_names(host)
    return tuple(dict.fromkeys(names))


def _host_names(host: str) -> list[x509.GeneralName]:
    """How the host stands in a certificate: not at all where it means every address of the machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return [x509.DNSName(_dns_name(host))]
    return [] if address.is_unspecified else [x509.IPAddress(address)]


def _dns_name(host: str) -> str:
    try:
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if not name or not all(label and label.replace("-", "").isalnum() for label in name.split(".")):
        raise ValueError(f"not a host name: {host!r}")
    return name


def ensure_authority(directory: Path, name: str, now: datetime) -> Authority:
    """The authority `name` ("client" or "grpc"), made where there is none yet. Raises OSError, ValueError."""
    path, key_path = authority_paths(directory, name)
    found = _read_authority(path, key_path)
    if found is not None and is_fresh(found.certificate, now):
        return found
    if found is None and path.exists() and is_fresh(read_certificates(path)[0], now):
        # No crash of ours leaves this behind, and a new authority would be a stranger to every client.
        raise ValueError(f"{key_path} is not the key of {path}: put it back, or remove both for a new authority")
    certificate, key = make_authority(name, now)
    write_pair(path, key_path, [certificate], key)
    return Authority(certificate, key, path)


def authority_paths(directory: Path, name: str) -> tuple[Path, Path]:
    """Where an authority's certificates are, and its key."""
    return directory / f"{name}-ca-cert.pem", directory / f"{name}-ca-key.pem"


def make_authority(name: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A new authority, not written anywhere yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The random part tells authorities of different installations apart, and this one from its successor.
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Parley {name} CA {secrets.token_hex(4)}")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(title, title, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _ensure_leaf(directory: Path, name: str, leaf: Leaf, authority: Authority, now: datetime) -> tuple[Path, Path]:
    path, key_path = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    found = read_pair(path, key_path)
    if found is None or not _is_good(found[0], leaf, authority, now):
        key = ec.generate_private_key(ec.SECP256R1())
        write_pair(path, key_path, [sign_leaf(leaf, key, authority, now)], key)
    return path, key_path


def sign_leaf(leaf: Leaf, key: ec.EllipticCurvePrivateKey, authority: Authority, now: datetime) -> x509.Certificate:
    """A certificate that says this, and fits the key."""
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(title, authority.certificate.subject, key, now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(leaf.usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(leaf.names), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _is_good(certificate: x509.Certificate, leaf: Leaf, authority: Authority, now: datetime) -> bool:
    """Whether a certificate still says what it should; names that are no longer asked for do no harm."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return is_fresh(certificate, now) and set(leaf.names) <= set(names) and set(leaf.usages) == set(usages)


def is_fresh(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is valid, and not about to end."""
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc - RENEW_BEFORE


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificates(path.read_bytes())


def read_pair(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The certificate and its key; None where one is missing, broken, or not the other's."""
    found = _read_authority(path, key_path)
    return None if found is None else (found.certificate, found.key)


def _read_authority(path: Path, key_path: Path) -> Authority | None:
    try:
        certificates = read_certificates(path)
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    own = [each for each in certificates if each.public_key() == key.public_key()]
    if not own or not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return Authority(own[0], key, path, tuple(each for each in certificates if each is not own[0]))


def write_pair(
    path: Path, key_path: Path, certificates: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey
) -> None:
    """Replaces certificates and key, each whole or not at all. A crash in between leaves a pair that does not fit."""
    pem = serialization.Encoding.PEM
    key_bytes = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    new_key = _write_temporary(key_path, key_bytes, 0o600)
    new_certificate = _write_temporary(path, b"".join(each.public_bytes(pem) for each in certificates), 0o644)
    new_key.replace(key_path)
    new_certificate.replace(path)
    _sync_directory(path.parent)


def write_certificates(path: Path, certificates: Sequence[x509.Certificate]) -> None:
    """Replaces a file of certificates, whole or not at all."""
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
    replace_file(path, pem, 0o644)


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Replaces a file, whole or not at all; it is on the disk when this returns."""
    _write_temporary(path, data, mode).replace(path)
    _sync_directory(path.parent)


def _write_temporary(path: Path, data: bytes, mode: int) -> Path:
    """Writes and syncs a file beside `path`, to be put in its place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        os.fsync(handle)
    return Path(name)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Makes the directory, private, and keeps other processes from making certificates in it meanwhile."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left_behind in directory.glob(".*.pem.*"):  # by a crash: nobody else is writing now
            left_behind.unlink()
        yield
    finally:
        os.close(handle)
