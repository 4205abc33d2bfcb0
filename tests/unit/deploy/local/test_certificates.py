from __future__ import annotations

import ipaddress
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.local import certificates
from deploy.local.certificates import ensure_stack, ensure_storage, make_admin

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
SERVICES = ("auth", "edge", "metrics", "rooms")


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(certificate: x509.Certificate) -> set[str]:
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in alternatives}


def usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def changed(directory: Path, before: dict[str, bytes]) -> set[str]:
    after = snapshot(directory)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_every_service_has_an_identity_that_the_grpc_authority_vouches_for(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, now=NOW)
    assert sorted(paths.services) == list(SERVICES)
    for service, (path, key) in paths.services.items():
        certificate = load(path)
        certificate.verify_directly_issued_by(load(paths.grpc_ca))
        assert names(certificate) == {
            f"spiffe://parley/{service}",
            "localhost",
            f"{service}.parley.internal",
            "127.0.0.1",
            "::1",
        }
        assert usages(certificate) == {CLIENT, SERVER}
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.not_valid_after_utc == NOW + timedelta(days=365)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key)  # fails unless key and certificate match


def test_what_clients_see_is_vouched_for_by_another_authority_and_is_no_identity(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, hosts=("chat.example.org", "192.0.2.7", "0.0.0.0", "::"), now=NOW)  # noqa: S104
    certificate = load(paths.server_certificate)
    certificate.verify_directly_issued_by(load(paths.client_ca))
    with pytest.raises(ValueError, match="issuer"):
        certificate.verify_directly_issued_by(load(paths.grpc_ca))
    assert names(certificate) >= {"localhost", "127.0.0.1", "::1", "chat.example.org", "192.0.2.7"}
    assert not names(certificate) & {"0.0.0.0", "::"}  # noqa: S104
    assert not any(name.startswith("spiffe:") for name in names(certificate))
    assert usages(certificate) == {SERVER}
    assert (paths.server_certificate.name, paths.server_key.name) == ("server-cert.pem", "server-key.pem")


def test_authorities_sign_leaves_only_and_last_ten_years(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, now=NOW)
    assert load(paths.client_ca).subject != load(paths.grpc_ca).subject
    for path in (paths.client_ca, paths.grpc_ca):
        certificate = load(path)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.digital_signature) == (True, False)
        assert certificate.not_valid_after_utc - NOW == timedelta(days=3650)


def test_an_operator_may_be_a_client_only(tmp_path: Path) -> None:
    path, key = make_admin(tmp_path, "alice", now=NOW)
    assert (path, key) == (tmp_path / "admin-alice-cert.pem", tmp_path / "admin-alice-key.pem")
    assert names(load(path)) == {"spiffe://parley/admin/alice"}
    assert usages(load(path)) == {CLIENT}
    load(path).verify_directly_issued_by(load(ensure_stack(tmp_path, now=NOW).grpc_ca))
    before = snapshot(tmp_path)
    make_admin(tmp_path, "alice", now=NOW)
    assert changed(tmp_path, before) == set()


@pytest.mark.parametrize("name", ["", "Alice", "../x", "a/b", "a b", "-a", "a" * 65, "é", "a\n"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="operator"):
        make_admin(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_keys_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    ensure_stack(directory, now=NOW)
    make_admin(directory, "local", now=NOW)
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == (0o644 if path.name.endswith("-cert.pem") else 0o600), path.name


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    ensure_stack(tmp_path, hosts=("example.org",), now=NOW)
    before = snapshot(tmp_path)
    ensure_stack(tmp_path, hosts=("example.org",), now=NOW + timedelta(days=300))
    ensure_stack(tmp_path, now=NOW)  # fewer names than before do no harm
    assert changed(tmp_path, before) == set()


def test_leaves_that_are_about_to_expire_are_renewed_and_authorities_stay(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, now=NOW)
    before = snapshot(tmp_path)
    later = NOW + timedelta(days=340)
    ensure_stack(tmp_path, now=later)
    leaves = {f"{name}-{kind}.pem" for name in (*SERVICES, "server") for kind in ("cert", "key")}
    assert changed(tmp_path, before) == leaves
    assert load(paths.server_certificate).not_valid_after_utc == later + timedelta(days=365)


def test_an_authority_that_is_about_to_expire_is_renewed_with_all_its_leaves(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, now=NOW)
    before = snapshot(tmp_path)
    ensure_stack(tmp_path, now=NOW + timedelta(days=3640))
    assert changed(tmp_path, before) == set(before) - {".lock"}
    load(paths.server_certificate).verify_directly_issued_by(load(paths.client_ca))


def test_a_new_host_renews_what_clients_see_and_nothing_else(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, now=NOW)
    before = snapshot(tmp_path)
    ensure_stack(tmp_path, hosts=("example.org",), now=NOW)
    assert changed(tmp_path, before) == {"server-cert.pem", "server-key.pem"}
    assert "example.org" in names(load(paths.server_certificate))


@pytest.mark.parametrize("host", ["", "a b", "-", "a..b", "x" * 64, "a_b", "*.example.org", "http://x"])
def test_what_is_no_host_is_refused_by_name(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        ensure_stack(tmp_path, hosts=(host,), now=NOW)


def test_hosts_of_any_script_and_addresses_in_brackets_are_understood(tmp_path: Path) -> None:
    paths = ensure_stack(tmp_path, hosts=("Bücher.example", "[2001:db8::1]", "fe80::1%eth0"), now=NOW)
    assert names(load(paths.server_certificate)) >= {"xn--bcher-kva.example", "2001:db8::1", "fe80::1"}
    assert ipaddress.ip_address("2001:db8::1")


def test_a_machine_whose_name_is_no_host_name_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates.socket, "gethostname", lambda: "my_machine !")
    assert names(load(ensure_stack(tmp_path, now=NOW).server_certificate)) == {"localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize("victim", ["auth-key.pem", "auth-cert.pem", "server-key.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "another's"])
def test_a_leaf_that_is_damaged_is_made_again(tmp_path: Path, victim: str, damage: str) -> None:
    paths = ensure_stack(tmp_path, now=NOW)
    path = tmp_path / victim
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"-----BEGIN NOTHING-----\n")
        case _:
            path.write_bytes((tmp_path / victim.replace("auth", "rooms").replace("server", "edge")).read_bytes())
    ensure_stack(tmp_path, now=NOW)
    for certificate, key in (*paths.services.values(), (paths.server_certificate, paths.server_key)):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert "spiffe://parley/auth" in names(load(paths.services["auth"][0]))


def test_an_authority_that_lost_its_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    ensure_stack(tmp_path, now=NOW)
    (tmp_path / "client-ca-key.pem").unlink()
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="client-ca-key"):
        ensure_stack(tmp_path, now=NOW)
    assert changed(tmp_path, before) == set()


class CrashError(Exception):
    pass


@pytest.mark.parametrize("survived", range(14))
def test_a_crash_at_any_moment_leaves_what_the_next_start_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """The process ends after `survived` files have been put in their places."""
    moves = 0
    replace = type(tmp_path).replace

    def crash(source: Path, target: Path) -> Path:
        nonlocal moves
        if moves == survived:
            raise CrashError
        moves += 1
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", crash)
        with pytest.raises(CrashError):
            ensure_stack(tmp_path, now=NOW)
    paths = ensure_stack(tmp_path, now=NOW)
    for certificate, key in paths.services.values():
        load(certificate).verify_directly_issued_by(load(paths.grpc_ca))
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    load(paths.server_certificate).verify_directly_issued_by(load(paths.client_ca))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".lock"]


def test_several_that_start_at_once_make_one_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as starters:
        list(starters.map(lambda _: ensure_stack(tmp_path, now=NOW), range(4)))
    before = snapshot(tmp_path)
    ensure_stack(tmp_path, now=NOW)
    assert changed(tmp_path, before) == set()


def test_storage_has_an_authority_of_its_own(tmp_path: Path) -> None:
    stack = ensure_stack(tmp_path, now=NOW)
    ca, pairs = ensure_storage(tmp_path, ["postgres", "redis"], now=NOW)
    for host, (path, _) in pairs.items():
        certificate = load(path)
        certificate.verify_directly_issued_by(load(ca))
        assert names(certificate) == {host}
        assert usages(certificate) == {SERVER}
        for other in (stack.grpc_ca, stack.client_ca):
            assert certificate.issuer != load(other).subject
    before = snapshot(tmp_path)
    ensure_storage(tmp_path, ["postgres", "redis"], now=NOW)
    assert not changed(tmp_path, before)
