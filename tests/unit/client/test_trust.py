from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from client.address import Address
from client.errors import TrustError
from client.known_hosts import KnownHosts
from client.stack import Process, Stack
from client.trust import (
    Authority,
    Pin,
    check_certificate,
    choose_trust,
    fingerprint_of,
    readable,
    refusal,
    tls_context,
)
from tests.helpers.certificates import make_authority

HERE = Address("127.0.0.1", 8888)
AWAY = Address("chat.example.org", 8888)


@pytest.fixture
def hosts(tmp_path: Path) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts")


@pytest.fixture
def stack() -> Stack:
    return Stack(Path("/ca.pem"), Path("/grpc.pem"), (Process("edge-1", "127.0.0.1:1", 8888),))


def test_the_named_authority_goes_first(hosts: KnownHosts, stack: Stack) -> None:
    hosts.trust(AWAY, "a" * 64)
    trust = choose_trust(AWAY, ca=Path("/mine.pem"), stacks=[stack], known_hosts=hosts)
    assert trust == Authority("chat.example.org", Path("/mine.pem"))


def test_the_stack_vouches_for_its_own_ports_on_this_machine_only(hosts: KnownHosts, stack: Stack) -> None:
    assert choose_trust(HERE, ca=None, stacks=[stack], known_hosts=hosts) == Authority("localhost", Path("/ca.pem"))
    other_port = choose_trust(Address("127.0.0.1", 9), ca=None, stacks=[stack], known_hosts=hosts)
    elsewhere = choose_trust(AWAY, ca=None, stacks=[stack], known_hosts=hosts)
    assert other_port == Authority("localhost", may_pin=True)
    assert elsewhere == Authority("chat.example.org", may_pin=True)


def test_a_pin_goes_before_the_authorities_of_the_machine(hosts: KnownHosts) -> None:
    hosts.trust(AWAY, "a" * 64)
    assert choose_trust(AWAY, ca=None, stacks=[], known_hosts=hosts) == Pin("a" * 64, hosts.path)


def test_every_context_is_tls_1_3_and_verifies_unless_it_is_pinned(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    for trust in (Authority("localhost"), Authority("localhost", authority.file)):
        context = tls_context(trust)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
    assert tls_context(Pin("a" * 64, tmp_path)).minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_an_authority_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TrustError, match=r"ca\.pem"):
        tls_context(Authority("localhost", file))


def test_a_pin_accepts_its_certificate_only(tmp_path: Path) -> None:
    pin = Pin(fingerprint_of(b"this one"), tmp_path / "known_hosts")
    check_certificate(AWAY, pin, b"this one")
    with pytest.raises(TrustError, match="somebody may be listening in") as changed:
        check_certificate(AWAY, pin, b"another one")
    assert not changed.value.may_pin
    assert readable(fingerprint_of(b"another one")) in str(changed.value)
    with pytest.raises(TrustError):
        check_certificate(AWAY, pin, None)


def test_only_without_a_named_authority_a_person_may_decide() -> None:
    assert refusal(AWAY, Authority("a", may_pin=True), "why", "f" * 64).may_pin
    assert not refusal(AWAY, Authority("a", may_pin=True), "why", None).may_pin
    assert not refusal(AWAY, Authority("a", Path("/ca.pem")), "why", "f" * 64).may_pin
    assert "--ca FILE" in str(refusal(AWAY, Authority("a", may_pin=True), "why", None))


def test_fingerprints_are_readable() -> None:
    assert readable("00ff10") == "00:FF:10"
