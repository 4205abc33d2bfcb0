from __future__ import annotations

from dataclasses import dataclass

from services.edge.decisions import User
from services.edge.directory import Directory


@dataclass(eq=False)
class Connection:
    id: int


def test_connections_are_found_by_number_and_listed_in_pages() -> None:
    directory: Directory[Connection] = Directory()
    connections = [Connection(number) for number in range(1, 6)]
    for connection in connections:
        directory.add(connection)
    assert directory.get(3) is connections[2]
    assert directory.get(9) is None
    assert directory.page(after=0, size=2) == connections[:2]
    assert directory.page(after=2, size=10) == connections[2:]
    directory.remove(connections[0])
    directory.remove(connections[0])
    assert list(directory) == connections[1:]
    assert len(directory) == 4


def test_sessions_come_and_go() -> None:
    directory: Directory[Connection] = Directory()
    connection = Connection(1)
    user = User("u1", "amy", "s1", 0.0)
    directory.log_in(user, connection)
    assert directory.of_session("s1") is connection
    assert (directory.session_ids, directory.session_count) == (["s1"], 1)
    assert list(directory.sessions()) == [(user, connection)]
    directory.log_out(user)
    directory.log_out(user)
    assert directory.of_session("s1") is None


def test_everybody_may_leave_while_being_looked_at() -> None:
    directory: Directory[Connection] = Directory()
    for number in range(10):
        directory.add(Connection(number))
    for connection in directory:
        directory.remove(connection)
    assert len(directory) == 0


def test_an_end_that_comes_before_the_login_is_told_after_it() -> None:
    told: list[tuple[str, str]] = []
    directory: Directory[Connection] = Directory(lambda session_id, reason: told.append((session_id, reason)))
    directory.ended_early("s1", "replaced")
    directory.log_in(User("u2", "bob", "s2", 0.0), Connection(2))
    assert told == []
    directory.log_in(User("u1", "amy", "s1", 0.0), Connection(1))
    directory.log_in(User("u1", "amy", "s1", 0.0), Connection(1))
    assert told == [("s1", "replaced")]


def test_of_early_ends_the_newest_are_kept() -> None:
    told: list[str] = []
    directory: Directory[Connection] = Directory(lambda session_id, _: told.append(session_id))
    for number in range(1_001):
        directory.ended_early(f"s{number}", "revoked")
    for number in range(1_001):
        directory.log_in(User("u1", "amy", f"s{number}", 0.0), Connection(number))
    assert told == [f"s{number}" for number in range(1, 1_001)]
