from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.common.config import ServiceConfig
from services.common.process import write_atomically, write_ready


def config(ready_file: Path | None) -> ServiceConfig:
    here = Path()
    return ServiceConfig(name="edge-1", certificate=here, private_key=here, ca=here, home=here, ready_file=ready_file)


def test_the_ready_file_says_who_serves_where(tmp_path: Path) -> None:
    path = tmp_path / "run" / "edge-1.json"
    with capture_logs() as logs:
        write_ready(config(path), {"grpc": "127.0.0.1:5", "client_port": 8888})
    assert json.loads(path.read_text()) == {
        "name": "edge-1",
        "pid": os.getpid(),
        "grpc": "127.0.0.1:5",
        "client_port": 8888,
    }
    assert [log["event"] for log in logs] == ["ready"]


def test_without_a_ready_file_it_is_only_logged() -> None:
    with capture_logs() as logs:
        write_ready(config(None), {"grpc": "127.0.0.1:5"})
    assert logs[0]["grpc"] == "127.0.0.1:5"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("f", b"new")]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
