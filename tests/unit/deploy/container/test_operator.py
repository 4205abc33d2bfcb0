from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.container import operator

PLACES = "auth=auth:50051, rooms=rooms-1:50052,rooms=rooms-2:50052,edge=edge:50050,"
ADDRESSES = {"auth": ["10.0.0.2"], "rooms-1": ["10.0.0.3"], "rooms-2": [], "edge": ["10.0.0.4", "10.0.0.5"]}


def test_names_become_processes_and_what_is_down_is_left_out() -> None:
    found = operator.find(PLACES, ADDRESSES.__getitem__)
    assert {entry.name: entry.grpc for entry in found} == {
        "auth-1": "10.0.0.2:50051",
        "rooms-1": "10.0.0.3:50052",
        "edge-1": "10.0.0.4:50050",
        "edge-2": "10.0.0.5:50050",
    }


@pytest.mark.parametrize("places", ["auth", "auth=host", "auth=:1", "=host:1", "auth=host:port"])
def test_a_bad_place_is_named(places: str) -> None:
    with pytest.raises(ValueError, match="service=host:port"):
        operator.find(places, lambda _: ["10.0.0.1"])


def test_a_name_without_an_address_has_none() -> None:
    assert operator.addresses("nobody.invalid") == []


def test_it_is_parley_admin_with_a_stack_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(operator.PROCESSES, "auth=localhost:1")
    assert operator.main(["accounts", "list"]) != 0  # there is no identity here
    assert "admin-local-cert.pem" in capsys.readouterr().err
    [process] = json.loads((tmp_path / "run" / "stack.json").read_text())["processes"]
    assert process["name"] == "auth-1"
    monkeypatch.setenv(operator.PROCESSES, "auth")
    assert operator.main([]) == 2
