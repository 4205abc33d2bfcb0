from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.local.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_line_goes_to_the_terminal_and_as_an_event_into_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path / "server.log")
    journal.say("edge-1 died")
    journal.say("edge-1 serves again — “so”")
    assert capsys.readouterr().err == "parley: edge-1 died\nparley: edge-1 serves again — “so”\n"
    events = [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
    assert [event["event"] for event in events] == ["edge-1 died", "edge-1 serves again — “so”"]
    assert all(event["service"] == "stack" for event in events)
    assert all({"ts", "level"} <= set(event) for event in events)
