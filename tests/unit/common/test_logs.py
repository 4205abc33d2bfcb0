from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from services.common import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if type(handler).__module__ != logs.__name__]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    logs.configure("auth-1", file=path)
    return path


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_an_event_is_one_line_of_json_in_the_file_and_on_stderr(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.get_logger("services.auth").info("logged in", user_id="u1", count=2)
    (line,) = lines(file)
    assert list(line)[:4] == ["ts", "level", "service", "event"]
    assert datetime.fromisoformat(line.pop("ts")).tzinfo is not None
    assert line == {
        "level": "info",
        "service": "auth-1",
        "event": "logged in",
        "user_id": "u1",
        "count": 2,
        "logger": "services.auth",
    }
    assert capsys.readouterr().err == file.read_text()


def test_what_is_named_like_a_secret_is_blanked_at_any_depth(file: Path) -> None:
    secret = "hunter2"
    logs.get_logger("x").warning(
        "refused",
        password=secret,
        Token=secret,
        text=secret,
        key=secret,
        new_password=secret,
        request={"data": [{"secret": secret, "room": "r1"}]},
    )
    assert secret not in file.read_text()
    assert lines(file)[0]["request"] == {"data": [{"secret": "[redacted]", "room": "r1"}]}


def test_an_exception_is_told_in_the_same_line(file: Path) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError as error:
        logs.get_logger("x").error("failed", exc_info=error)
    (line,) = lines(file)
    assert "ValueError: broken\nin two lines" in line["exception"]


class Unprintable:
    def __repr__(self) -> str:
        return "<thing>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("line\nbreak\u2028\x00", "line\nbreak\u2028\x00"),
        ("\ud800", "\\ud800"),
        (b"\xff", "b'\\xff'"),
        (Unprintable(), "<thing>"),
        (2**70, str(2**70)),
        ({1: {2}}, {"1": [2]}),
        ("x" * 9_000, "x" * 8_000 + "…"),
        (float("nan"), "nan"),
        ("\x85\x9b2J\x7f\u202e", "\x85\x9b2J\x7f\u202e"),
    ],
)
def test_any_value_makes_a_parseable_line(file: Path, value: object, expected: object) -> None:
    logs.get_logger("x").info("event", value=value)
    (line,) = lines(file)
    assert line["value"] == expected
    assert all(" " <= character <= "~" for character in file.read_text().rstrip("\n"))


def test_a_value_that_holds_itself_makes_a_parseable_line(file: Path) -> None:
    value: list[object] = []
    value.append(value)
    logs.get_logger("x").info("event", value=value)
    assert len(lines(file)) == 1


def test_levels_below_the_configured_one_are_not_written(tmp_path: Path) -> None:
    logs.configure("auth-1", level="warning", file=tmp_path / "l")
    logs.get_logger("x").info("quiet")
    logs.get_logger("x").warning("loud")
    assert [line["event"] for line in lines(tmp_path / "l")] == ["loud"]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="log_level"):
        logs.configure("auth-1", level="loud")


def test_the_standard_librarys_warnings_come_the_same_way_once(file: Path) -> None:
    logs.configure("auth-1", file=file)  # a second time must not double the lines
    logger = logging.getLogger("grpc._cython")
    logger.info("not this")
    logger.warning("100%% of %s", "it")
    logger.error("no arguments: %s")
    assert [(line["event"], line["logger"], line["level"]) for line in lines(file)] == [
        ("100% of it", "grpc._cython", "warning"),
        ("no arguments: %s", "grpc._cython", "error"),
    ]


def test_a_closed_stderr_does_not_stop_the_service(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _data: str) -> None:
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr("sys.stderr", Closed())
    logs.get_logger("x").info("still here")
    assert lines(file)[0]["event"] == "still here"


def test_the_level_changes_for_loggers_that_are_there(file: Path) -> None:
    log = logs.get_logger("services.auth")
    log.debug("one")
    logs.set_level("debug")
    log.debug("two")
    logs.set_level("error")
    log.warning("three")
    assert [line["event"] for line in lines(file)] == ["two"]
    assert logs.current_level() == "error"


def test_a_level_that_does_not_exist_changes_nothing(file: Path) -> None:
    with pytest.raises(ValueError, match="log_level: one of debug"):
        logs.set_level("loud")
    assert logs.current_level() == "info"


def test_a_stderr_that_nobody_reads_does_not_stop_the_service(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        logs.configure("auth", file=file)
        log = logs.get_logger("test")
        for number in range(1_000):
            log.info("a line of some length", number=number, filling="x" * 200)
    assert len(file.read_text().splitlines()) == 1_000
