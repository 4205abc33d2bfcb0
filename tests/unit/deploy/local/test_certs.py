from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deploy import cli
from deploy.local import certs, renewal

if TYPE_CHECKING:
    from pathlib import Path


def certs_command(home: Path, *arguments: str) -> int:
    return cli.main(["certs", "--home", str(home), *arguments])


def test_make_show_and_renew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert certs_command(tmp_path, "make", "--host", "chat.example.org") == 0
    assert "chat.example.org" in capsys.readouterr().out
    assert certs_command(tmp_path, "show", "--json") == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["edge"]["spiffe_id"] == "spiffe://parley/edge"
    assert entries["edge"]["days_left"] in (364, 365)
    before = (tmp_path / "certificates" / "edge-cert.pem").read_bytes()
    assert certs_command(tmp_path, "renew", "edge") == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "certificates" / "edge-cert.pem")]
    assert (tmp_path / "certificates" / "edge-cert.pem").read_bytes() != before


def test_an_authority_is_replaced_in_three_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(certs.time, "sleep", waits.append)
    certs_command(tmp_path, "make")
    assert certs_command(tmp_path, "renew", "grpc-ca") == 0
    assert "parley certs retire grpc-ca" in capsys.readouterr().out
    assert certs_command(tmp_path, "retire", "grpc-ca", "--now") == 1
    assert "still vouched for by the old authority" in capsys.readouterr().err
    assert certs_command(tmp_path, "renew", "--all") == 0
    # Nobody may meet a certificate of an authority that it has not read of; the other wait is for the assertions' key.
    assert [0 < wait_s <= renewal.TRUST_S for wait_s in waits] == [True, True]
    waits.clear()
    assert certs_command(tmp_path, "retire", "grpc-ca") == 0
    assert [0 < wait_s <= renewal.TRUST_S for wait_s in waits] == [True]  # until the new ones are in use
    assert capsys.readouterr().out.endswith("grpc-ca: 1 predecessor retired\n")


def test_the_key_of_assertions_is_renewed_and_its_predecessor_retired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certs.time, "sleep", lambda _: None)
    certs_command(tmp_path, "make")
    key = tmp_path / "certificates" / "assertion-key.pem"
    before = key.read_bytes()
    assert certs_command(tmp_path, "renew", "assertions") == 0
    assert key.read_bytes() != before
    assert certs_command(tmp_path, "retire", "assertions") == 1
    assert "--now if it was stolen" in capsys.readouterr().err
    assert certs_command(tmp_path, "retire", "assertions", "--now") == 0
    assert capsys.readouterr().out.endswith("assertions: 1 predecessor retired\n")


def test_a_certificate_that_does_not_serve_is_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certs_command(tmp_path, "make")
    (tmp_path / "certificates" / "rooms-key.pem").unlink()
    assert certs_command(tmp_path, "show") == certs.UNUSABLE
    assert "key does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("show",), "there are no certificates"),
        (("renew",), "name what to renew, or say --all"),
        (("renew", "--all", "edge"), "name what to renew, or say --all"),
        (("renew", "edge"), "no identity 'edge'; there are: none"),
        (("renew", "moon-ca"), "no authority moon-ca"),
        (("retire", "grpc-ca"), "no authority grpc-ca here"),
        (("admin", "no/name"), "an operator's name"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert certs_command(tmp_path, *arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith("parley: certs: ")
    assert told in line
    assert line.count("\n") == 1
