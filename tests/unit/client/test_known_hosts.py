from __future__ import annotations

from pathlib import Path

import pytest

from client.address import Address
from client.errors import TrustError
from client.known_hosts import KnownHosts, default_path

HERE = Address("chat.example.org", 8888)
THERE = Address("::1", 9999)


def test_where_the_file_is() -> None:
    home = {"HOME": "/people/ada"}
    assert default_path(home) == Path("/people/ada/.config/parley/known_hosts")
    assert default_path({**home, "XDG_CONFIG_HOME": "/x"}) == Path("/x/parley/known_hosts")
    assert default_path({**home, "XDG_CONFIG_HOME": "x"}) == Path("/people/ada/.config/parley/known_hosts")


def test_decisions_are_kept_privately_and_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "known_hosts"
    hosts = KnownHosts(path)
    assert hosts.fingerprint(HERE) is None
    hosts.trust(HERE, "a" * 64)
    hosts.trust(THERE, "b" * 64)
    hosts.trust(HERE, "c" * 64)
    assert KnownHosts(path).fingerprint(HERE) == "c" * 64
    assert KnownHosts(path).fingerprint(THERE) == "b" * 64
    assert KnownHosts(path).fingerprint(Address("chat.example.org", 8889)) is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["known_hosts"]


@pytest.mark.parametrize(
    "line", ["chat.example.org:8888", "chat.example.org:8888 sha256:abc", "x sha1:" + "a" * 64, "\x00"]
)
def test_a_line_that_cannot_be_read_is_not_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# a comment\n\n{line}\n")
    with pytest.raises(TrustError, match="line 3"):
        KnownHosts(path).fingerprint(HERE)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        KnownHosts(tmp_path).fingerprint(HERE)


def test_a_decision_that_cannot_be_written_down_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "parley").write_text("in the way")
    with pytest.raises(TrustError):
        KnownHosts(tmp_path / "parley" / "known_hosts").trust(HERE, "a" * 64)
