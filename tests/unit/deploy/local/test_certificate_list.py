from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from deploy.local import certificate_list, renewal
from deploy.local.certificates import ensure_stack, make_admin

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    ensure_stack(tmp_path, hosts=("chat.example.org",), now=NOW)
    make_admin(tmp_path, "alice", now=NOW)
    return tmp_path


def states(directory: Path, now: datetime = NOW) -> dict[str, str]:
    return {entry.name: entry.state for entry in certificate_list.read(directory, now=now)}


def test_everything_is_listed_with_whose_it_is_and_how_long_it_lasts(directory: Path) -> None:
    entries = {entry.name: entry for entry in certificate_list.read(directory, now=NOW)}
    assert list(entries) == ["client-ca", "grpc-ca", "admin-alice", "auth", "edge", "metrics", "rooms", "server"]
    assert all(entry.is_usable for entry in entries.values())
    auth, server = entries["auth"], entries["server"]
    assert (auth.subject, auth.spiffe_id, auth.days_left) == ("CN=auth", "spiffe://parley/auth", 365)
    assert auth.issuer == entries["grpc-ca"].subject
    assert server.spiffe_id == ""
    assert {"localhost", "127.0.0.1", "chat.example.org"} <= set(server.names)
    assert auth.not_after == "2027-11-23T12:00:00+00:00"
    assert entries["admin-alice"].spiffe_id == "spiffe://parley/admin/alice"


@pytest.mark.parametrize(
    ("days", "state"), [(0, "good"), (334, "good"), (336, "expires soon"), (366, "expired"), (-1, "not valid yet")]
)
def test_the_state_follows_the_time(directory: Path, days: int, state: str) -> None:
    assert states(directory, NOW + timedelta(days=days))["rooms"] == state


def test_what_is_wrong_is_said(directory: Path) -> None:
    shutil.copy(directory / "rooms-key.pem", directory / "auth-key.pem")
    (directory / "edge-cert.pem").write_text("half")
    (directory / "metrics-key.pem").unlink()
    (directory / "client-ca-key.pem").unlink()
    (directory / "grpc-ca-cert.pem").write_text("half")
    found = states(directory)
    assert found["auth"] == found["metrics"] == "key does not fit"
    assert found["edge"] == found["grpc-ca"] == "is not a whole certificate"
    assert found["client-ca"] == "has lost its key"
    assert found["rooms"] == "good"


def test_a_predecessor_is_listed_as_such(directory: Path) -> None:
    renewal.renew_authority(directory, "grpc", now=NOW)
    assert {"grpc-ca", "grpc-ca (only trusted)"} <= states(directory).keys()


def test_the_table_has_a_line_for_each_and_no_space_at_the_end(directory: Path) -> None:
    lines = certificate_list.table(certificate_list.read(directory, now=NOW)).splitlines()
    assert lines[0].split() == ["NAME", "SUBJECT", "IDENTITY", "EXPIRES", "DAYS", "LEFT", "STATE"]
    assert len(lines) == 9
    assert lines == [line.rstrip() for line in lines]
    assert any(line.split()[:3] == ["auth", "CN=auth", "spiffe://parley/auth"] for line in lines)
