from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from deploy.container import secrets
from deploy.container.secrets import Share, distribute, main, make

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Share]]:
    return make(tmp_path_factory.mktemp("originals"), hosts=["chat.example.org"])


def test_every_service_gets_its_own_identity_and_the_authority_of_all(shares: dict[str, dict[str, Share]]) -> None:
    for service in secrets.SERVICES:
        certificate = x509.load_pem_x509_certificate(shares[service]["certificate.pem"].content)
        authority = x509.load_pem_x509_certificate(shares[service]["ca.pem"].content)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://parley/{service}"]


def test_the_edge_gets_nothing_of_the_storage(shares: dict[str, dict[str, Share]]) -> None:
    for service in ("edge", "operator"):
        assert not [name for name in shares[service] if "password" in name or "storage" in name]
    assert not [name for name in shares["metrics"] if "password" in name]


def test_each_service_has_the_password_of_its_own_role_only(shares: dict[str, dict[str, Share]]) -> None:
    passwords = {service: shares[service]["database-password"].content for service in ("auth", "rooms")}
    assert passwords["auth"] != passwords["rooms"]
    assert passwords["auth"] == shares["database"]["auth-password"].content
    assert passwords["rooms"] == shares["database"]["rooms-password"].content
    assert shares["database"]["password"].content not in passwords.values()


def test_metrics_knows_the_collector_by_an_authority_that_counts_for_no_service(
    shares: dict[str, dict[str, Share]],
) -> None:
    assert shares["metrics"]["storage-ca.pem"] == shares["collector"]["ca.pem"]
    assert shares["collector"]["ca.pem"] != shares["metrics"]["ca.pem"]
    assert set(shares["collector"]) == {"ca.pem", "certificate.pem", "key.pem"}


def test_auth_alone_can_sign_assertions_and_rooms_can_verify_them(shares: dict[str, dict[str, Share]]) -> None:
    holders = {service for service, files in shares.items() if "assertion-key.pem" in files}
    assert holders == {"auth"}
    assert shares["auth"]["assertion-key.pem"].mode == 0o600
    assert shares["rooms"]["assertion-public.pem"] == shares["auth"]["assertion-public.pem"]
    assert "assertion-public.pem" not in shares["edge"]


def test_no_authoritys_key_is_given_away(shares: dict[str, dict[str, Share]], tmp_path: Path) -> None:
    make(tmp_path)
    keys = {path.read_bytes() for path in tmp_path.glob("*-ca-key.pem")}
    assert len(keys) == 3
    given = {share.content for files in shares.values() for share in files.values()}
    assert not [content for content in given if b"PRIVATE KEY" in content and content in keys]
    assert not [name for files in shares.values() for name in files if name.endswith("ca-key.pem")]


def test_the_storages_certificates_are_for_their_names_and_count_as_no_service(
    shares: dict[str, dict[str, Share]],
) -> None:
    for container, host in (("database", "postgres"), ("redis", "redis"), ("collector", "otel-collector")):
        certificate = x509.load_pem_x509_certificate(shares[container]["certificate.pem"].content)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [name.value for name in names] == [host]
        grpc_ca = x509.load_pem_x509_certificate(shares["auth"]["ca.pem"].content)
        assert certificate.issuer != grpc_ca.subject


def test_clients_find_the_host_in_the_edges_certificate(shares: dict[str, dict[str, Share]]) -> None:
    certificate = x509.load_pem_x509_certificate(shares["edge"]["client-certificate.pem"].content)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "chat.example.org" in names.get_values_for_type(x509.DNSName)


def test_what_is_there_stays(tmp_path: Path) -> None:
    home, target = tmp_path / "home", tmp_path / "target"
    first = distribute(make(home), target)
    assert "auth/key.pem" in first
    assert distribute(make(home), target) == []


def test_what_was_lost_or_opened_up_is_mended(tmp_path: Path) -> None:
    home, target = tmp_path / "home", tmp_path / "target"
    distribute(make(home), target)
    (target / "auth" / "database-password").unlink()
    (target / "edge" / "key.pem").chmod(0o644)
    assert distribute(make(home), target) == ["auth/database-password", "edge/key.pem"]
    assert (target / "edge" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_an_identity_loads_as_what_a_tls_server_needs(tmp_path: Path) -> None:
    distribute(make(tmp_path / "home"), tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "redis" / "certificate.pem", tmp_path / "redis" / "key.pem")


def test_the_command_says_what_it_wrote_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--home", str(tmp_path / "home"), "--target", str(tmp_path / "target"), "--hosts", "a.example, ,"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    password = (tmp_path / "home" / "redis-password").read_text()
    assert "auth/key.pem" in told.out
    assert password not in told.out + told.err
    assert main(arguments) == 0
    assert "all there" in capsys.readouterr().out


def test_a_bad_host_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(tmp_path), "--target", str(tmp_path / "t"), "--hosts", "not a host"]) == 1
    assert "not a host" in capsys.readouterr().err
