from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.ghz import settings
from tests.ghz.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

LEAST: dict[str, Any] = {"call": "a.B/C", "host": "127.0.0.1:1"}


def test_defaults_are_those_of_ghz() -> None:
    read = settings.from_values(LEAST)
    assert (read.total, read.concurrency, read.connections, read.format) == (200, 50, 1, "summary")
    assert (read.timeout, read.connect_timeout) == (20_000_000_000, 10_000_000_000)


def test_keys_may_come_from_json_and_toml(tmp_path: Path) -> None:
    as_json, as_toml = tmp_path / "a.json", tmp_path / "a.toml"
    as_json.write_text(json.dumps({**LEAST, "total": 7, "concurrency": 2, "timeout": "250ms", "data": {"a": 1}}))
    as_toml.write_text(
        'call = "a.B/C"\nhost = "127.0.0.1:1"\ntotal = 7\nconcurrency = 2\ntimeout = "250ms"\n[data]\na = 1\n'
    )
    assert settings.read(["--config", str(as_json)]) == settings.read(["--config", str(as_toml)])
    assert settings.read(["--config", str(as_json)]).timeout == 250_000_000


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({**LEAST, "total": 7, "concurrency": 2, "insecure": True, "metadata": {"a": "b"}}))
    read = settings.read(["--config", str(file), "-n", "9", "--load-step=-3", "-d", '[{"x":1}]', "10.0.0.1:2"])
    assert (read.total, read.concurrency, read.insecure, read.host) == (9, 2, True, "10.0.0.1:2")
    assert (read.load_step, read.data, read.metadata) == (-3, [{"x": 1}], {"a": "b"})


def test_data_and_metadata_may_be_in_files(tmp_path: Path) -> None:
    data, metadata = tmp_path / "data.json", tmp_path / "metadata.json"
    data.write_text('[{"a": 1}, {"a": 2}]')
    metadata.write_text('{"x-key": "value"}')
    read = settings.from_values({**LEAST, "data-file": str(data), "metadata-file": str(metadata)})
    assert read.data == [{"a": 1}, {"a": 2}]
    assert read.metadata == {"x-key": "value"}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"call": ""}, "call"),
        ({"host": ""}, "host"),
        ({"totl": 5}, "is it total"),
        ({"lb-strategy": "round_robin"}, "the real ghz knows"),
        ({"total": "many"}, "total"),
        ({"total": 1.5}, "total"),
        ({"total": True}, "total"),
        ({"total": -1}, "total"),
        ({"total": 10, "concurrency": 11}, "concurrency"),
        ({"connections": 51}, "connections"),
        ({"timeout": 5}, "timeout"),
        ({"insecure": "yes"}, "insecure"),
        ({"cert": "a.pem"}, "cert and key"),
        ({"authority": "x"}, "authority"),
        ({"skipTLS": True}, "always verifies"),
        ({"format": "xml"}, "format"),
        ({"duration-stop": "never"}, "duration-stop"),
        ({"data": []}, "data"),
        ({"data": [1]}, "data"),
        ({"data": "{"}, "data"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"proto": "a", "protoset": "b"}, "only one"),
        ({"load-schedule": "wave"}, "load-schedule"),
        ({"load-schedule": "step", "load-start": 1, "load-step": 1}, "load-step-duration"),
        ({"load-schedule": "line", "load-start": 1}, "load-step"),
        ({"concurrency-schedule": "line", "concurrency-start": 0, "concurrency-step": 1}, "concurrency-start"),
        ({"data-file": "/nowhere/at/all"}, "No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        settings.from_values({**LEAST, **values})


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"nonsense"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(SettingsError):
        settings.load_file(file)
