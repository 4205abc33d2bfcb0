from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.identity import Identity, is_admin_name, parse_spiffe, peer_identity


@pytest.mark.parametrize("kind", ["edge", "auth", "rooms", "metrics"])
def test_a_service_has_its_uri(kind: str) -> None:
    assert parse_spiffe(f"spiffe://parley/{kind}") == Identity(kind)
    assert Identity(kind).uri == f"spiffe://parley/{kind}"


def test_an_operator_has_a_name() -> None:
    assert parse_spiffe("spiffe://parley/admin/alice.b-1") == Identity("admin", "alice.b-1")
    assert str(Identity("admin", "alice")) == "admin/alice"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://parley",
        "spiffe://parley/",
        "spiffe://parley/edge/",
        "spiffe://parley/edge/1",
        "spiffe://parley/Edge",
        "spiffe://parley/admin",
        "spiffe://parley/admin/",
        "spiffe://parley/admin/a/b",
        "spiffe://parley/admin/../edge",
        "spiffe://parley/admin/a\n",
        "spiffe://parley/root",
        "spiffe://parley.example/edge",
        "spiffe://other/edge",
        "https://parley/edge",
        " spiffe://parley/edge",
        "spiffe://parley/edge?x=1",
    ],
)
def test_anything_else_is_nobody(uri: str) -> None:
    assert parse_spiffe(uri) is None


@given(st.text(max_size=80))
def test_what_parses_is_written_the_same(text: str) -> None:
    identity = parse_spiffe(f"spiffe://parley/{text}")
    assert identity is None or identity.uri == f"spiffe://parley/{text}"


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("a" * 64, True), ("a" * 65, False), ("-a", False), ("", False)]
)
def test_names_of_operators(name: str, good: bool) -> None:
    assert is_admin_name(name) is good


class Context:
    def __init__(self, **properties: list[bytes]) -> None:
        self.properties = properties

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.properties


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, None),
        ({"peer_spiffe_id": [b"spiffe://parley/auth"]}, Identity("auth")),
        ({"peer_spiffe_id": [b"spiffe://parley/auth", b"spiffe://parley/edge"]}, None),
        ({"peer_spiffe_id": [b"\xff"]}, None),
        ({"x509_subject_alternative_name": [b"localhost", b"spiffe://parley/edge"]}, Identity("edge")),
        ({"x509_subject_alternative_name": [b"spiffe://parley/auth", b"spiffe://parley/edge"]}, None),
        ({"x509_subject_alternative_name": [b"localhost"]}, None),
        ({"x509_common_name": [b"edge"]}, None),
    ],
)
def test_the_peer_is_who_its_only_spiffe_uri_says(
    properties: dict[str, list[bytes]], expected: Identity | None
) -> None:
    assert peer_identity(cast("Any", Context(**properties))) == expected
