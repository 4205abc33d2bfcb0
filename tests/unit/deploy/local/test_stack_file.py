from __future__ import annotations

import json
import stat
from pathlib import Path

from deploy.local import stack_file
from deploy.local.stack_file import Entry


def test_says_exactly_what_others_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    entries = [
        Entry(name="metrics-1", pid=10, grpc="127.0.0.1:1", prometheus="127.0.0.1:2"),
        Entry(name="edge-1", pid=11, grpc="127.0.0.1:3", prometheus="127.0.0.1:4", client_port=8888),
    ]
    stack_file.write(path, client_ca=Path("/h/a.pem"), grpc_ca=Path("/h/b.pem"), entries=entries)
    assert json.loads(path.read_text()) == {
        "client_ca": "/h/a.pem",
        "grpc_ca": "/h/b.pem",
        "processes": [
            {"name": "metrics-1", "pid": 10, "grpc": "127.0.0.1:1", "prometheus": "127.0.0.1:2"},
            {"name": "edge-1", "pid": 11, "client_port": 8888, "grpc": "127.0.0.1:3", "prometheus": "127.0.0.1:4"},
        ],
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_is_replaced_in_one_step_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    path.write_text("old")
    path.chmod(0o644)
    stack_file.write(path, client_ca=Path("a"), grpc_ca=Path("b"), entries=[])
    assert json.loads(path.read_text())["processes"] == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["stack.json"]


def test_targets_are_in_the_form_of_file_sd(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.json"
    path.write_text("old")
    entries = [
        Entry(name="metrics-1", pid=10, grpc="127.0.0.1:1", prometheus="127.0.0.1:2"),
        Entry(name="edge-12", pid=11, grpc="127.0.0.1:3", prometheus="[::1]:4", client_port=8888),
    ]
    stack_file.write_targets(path, entries)
    assert json.loads(path.read_text()) == [
        {"targets": ["127.0.0.1:2"], "labels": {"service": "metrics", "process": "metrics-1"}},
        {"targets": ["[::1]:4"], "labels": {"service": "edge", "process": "edge-12"}},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["prometheus.json"]
