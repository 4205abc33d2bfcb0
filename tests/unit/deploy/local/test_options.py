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
        (("--database", "postgresql://x"), "--database"),
        (("--redis", "redis://x"), "--redis"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments: tuple[str, ...], name: str) -> None:
    with pytest.raises(StartError, match=f"^{name}"):
        parse(*arguments)
