"""Results of runs, and the table that is made of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.chaos.series import HEAD, main, read, table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def run(seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "seed": seed, "good": True, "sends": 10, "acknowledged": 9, "unknown": 1, "deliveries": 90, "resumes": 3,
        "files": 2, "faults": {"kill": 2, "cut": 1}, "violations": {}, "commit": "abc",
        "acknowledged_again_s": {"kill": [1.0, 3.0]}, "back_s": {"restart": [0.5]}, **changes,
    }  # fmt: skip


def test_the_table_sums_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.jsonl"
    assert read(results) == []
    results.write_text("".join(json.dumps(run(seed)) + "\n" for seed in (2, 1)))
    assert main(["--table", str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == HEAD
    assert lines[2] == "| 1 | 10 | 9 | 1 | 90 | 3 | 2 | cut 1, kill 2 | 0 |"
    assert "2 runs, 2 of them good: 20 sends, 18 acknowledged, 180 deliveries, 4 files" in lines
    assert "kinds of fault in a run: at least 2" in lines
    assert "commits: abc (2)" in lines
    assert any(line.startswith("rooms gone, acknowledged again (kill, 4 waits): median 2.00 s") for line in lines)


def test_a_run_that_was_not_good_says_what_it_broke() -> None:
    lines = list(table([run(1, good=False, violations={"I9": 1}), {"seed": 2, "good": False}]))
    assert lines[2].endswith("| I9 |")
    assert lines[3].endswith("| not checked |")
    assert "2 runs, 0 of them good" in "\n".join(lines)
