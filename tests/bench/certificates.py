"""A certificate authority and one server certificate for a benchmark run."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bench.server import Certificates


def make_certificates(directory: Path) -> Certificates:
    """Makes them, ECDSA P-256 as Parley's own are, valid for a day, for localhost."""
    now = dt.datetime.now(dt.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {name}")]) for name in keys}

    def build(name: str, extension: x509.ExtensionType) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(keys["ca"], hashes.SHA256())
        )

    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = {
        "ca.pem": build("ca", x509.BasicConstraints(ca=True, path_length=None)),
        "server.pem": build("server", x509.SubjectAlternativeName([x509.DNSName("localhost"), address])),
    }
    for file, certificate in made.items():
        (directory / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = keys["server"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "server.key").write_bytes(private)
    (directory / "server.key").chmod(0o644)  # the peers run under accounts of their own; the key lives for one run
    return Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
