from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from deploy.local import options
from deploy.local.failures import StartError


def parse(*arguments: str) -> options.Options:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return options.from_arguments(parser.parse_args(arguments))


def test_defaults() -> None:
    assert parse() == options.Options(home=Path.cwd(), host="127.0.0.1", port=8888, edges=1, config=None)


def test_paths_become_absolute() -> None:
    made = parse("--home", "x", "--config", "y.toml")
    assert made.home == Path.cwd() / "x"
    assert made.config == Path.cwd() / "y.toml"


def test_edges_take_neighbouring_ports() -> None:
    assert list(parse("--port", "9000", "--edges", "3").client_ports) == [9000, 9001, 9002]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--edges", "0"), "--edges"),
        (("--edges", "33"), "--edges"),
        (("--port", "0"), "--port"),
        (("--port", "65536"), "--port"),
        (("--port", "65535", "--edges", "2"), "--port"),
        (("--host", ""), "--host"),
        (("--rooms", "2"), "--rooms"),
        (("--rooms", "0"), "--rooms"),
        (("--rooms", "17", "--database", "postgresql://x", "--redis", "redis://x"), "--rooms"),
        (("--rooms", "2", "--database", "postgresql://x"), "--rooms"),
        (("--rooms", "2", "--redis", "redis://x"), "--rooms"),
        (("--database", "mysql://x"), "--database"),
        (("--database", "postgresql://[x"), "--database"),
        (("--database", ""), "--database"),
        (("--database", "postgresql://x", "--redis", "http://x"), "--redis"),
        (("--redis", "redis://x"), "--redis"),
        (("--database-password-file", "/dev/null"), "--database-password-file"),
        (("--redis-ca-file", "/dev/null"), "--redis-ca-file"),
        (("--database", "postgresql://x", "--database-ca-file", "/no/such"), "--database-ca-file"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments: tuple[str, ...], name: str) -> None:
    with pytest.raises(StartError, match=f"^{name}"):
        parse(*arguments)


def test_a_database_outside_the_stack_is_taken_with_its_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    made = parse(
        *("--database", "postgresql://db/parley", "--database-password-file", str(secret)),
        *("--database-ca-file", str(secret)),
    )
    assert made.database == options.Server(url="postgresql://db/parley", password_file=secret, ca_file=secret)


def test_several_rooms_processes_share_a_database_and_redis() -> None:
    made = parse("--rooms", "2", "--database", "postgresql://db/parley", "--redis", "rediss://cache/1")
    assert made.rooms == 2
    assert made.redis == options.Server(url="rediss://cache/1")
    assert parse("--database", "postgresql://db/parley", "--redis", "redis://cache").rooms == 1


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(StartError) as refused:
        parse("--database", "mysql://ada:hunter2@db/parley")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(parse("--database", "postgresql://ada:hunter2@db/parley"))
