from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.stack import read_stack


def write(home: Path, content: str) -> None:
    (home / "run").mkdir(exist_ok=True)
    (home / "run" / "stack.json").write_text(content)


def test_a_running_stack(tmp_path: Path) -> None:
    processes = [
        {"name": "edge-1", "pid": 1, "client_port": 8888, "grpc": "127.0.0.1:50050", "prometheus": "127.0.0.1:9464"},
        {"name": "edge-2", "pid": 2, "client_port": 8889, "grpc": "127.0.0.1:50150", "prometheus": "127.0.0.1:9465"},
        {"name": "auth-1", "pid": 3, "grpc": "127.0.0.1:50051", "prometheus": "127.0.0.1:9466", "later": True},
    ]
    write(tmp_path, json.dumps({"client_ca": "/certs/a.pem", "grpc_ca": "certs/b.pem", "processes": processes}))
    stack = read_stack(tmp_path)
    assert stack is not None
    assert stack.client_ca == Path("/certs/a.pem")
    assert stack.grpc_ca == tmp_path / "certs/b.pem"
    assert stack.client_ports == (8888, 8889)
    assert [process.name for process in stack.of_service("edge")] == ["edge-1", "edge-2"]
    assert stack.of_service("auth")[0].grpc == "127.0.0.1:50051"


def test_no_stack(tmp_path: Path) -> None:
    assert read_stack(tmp_path) is None
    assert read_stack(tmp_path / "nowhere") is None


def described(processes: str) -> str:
    return f'{{"client_ca": "a", "grpc_ca": "b", "processes": {processes}}}'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", "\udcff", described("[{}]"), described("1"), described("[1]"), '{"client_ca": 1}'],
)
def test_what_is_not_a_stack_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"stack\.json"):
        read_stack(tmp_path)
