"""A short run against a real stack that is broken in every way that this machine allows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos import events as e
from tests.chaos import report
from tests.chaos.__main__ import main
from tests.chaos.nemesis.choice import KINDS
from tests.chaos.run import Plan, run
from tests.chaos.target import own
from tests.helpers.servers import find_program

SECONDS = 10.0


def _need(layout: str) -> None:
    if layout == "postgres":
        find_program("redis-server")
        find_program("postgres", *Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.mark.parametrize("layout", ["sqlite"])
@pytest.mark.timeout(240)  # of which a machine that does other things may take minutes to start the stack
async def test_the_promise_is_kept_while_everything_breaks(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "events.jsonl"
    _need(layout)
    with own(layout) as target:
        outcome = await run(target, Plan(seconds=SECONDS, seed=7, people=5, faults=frozenset(KINDS)), log)
    assert outcome.is_good, report.of_outcome(outcome)
    seen = outcome.verdict.seen
    assert seen["Ok"] > 50
    assert seen["Fault"] >= 2
    assert seen["ResumeOk"] > 0
    assert outcome.verdict.audited >= 3 * 50  # each edge and the store
    assert json.dumps(report.as_json(outcome))
    # The log is checked again as `parley check --history` does it, and once more without one of its acknowledged texts.
    assert main(["--history", str(log)]) == 0
    lines = log.read_text().splitlines()
    [gone] = [line for line in lines if '"event":"ok"' in line][:1]
    lied = gone.replace('"seq":', '"seq":1')  # another number than the one that everybody saw
    log.write_text("\n".join(lied if line == gone else line for line in lines))
    assert main(["--history", str(log)]) == 1
    assert json.loads(gone)["key"] in capsys.readouterr().out


@pytest.mark.timeout(240)
async def test_a_restored_backup_is_a_new_epoch_and_nobody_is_confused(tmp_path: Path) -> None:
    plan = Plan(seconds=SECONDS, seed=3, people=5, faults=frozenset({"cut", "kill"}), restore=True)
    with own("sqlite") as target:
        outcome = await run(target, plan, tmp_path / "events.jsonl")
    assert outcome.is_good, report.of_outcome(outcome)
    with (tmp_path / "events.jsonl").open("rb") as lines:
        events = list(e.decode(lines))
    [restored] = [event for event in events if isinstance(event, e.Restored)]
    before = {ok.epoch for ok in events if isinstance(ok, e.Ok) and ok.t < restored.t}
    after = {ok.epoch for ok in events if isinstance(ok, e.Ok) and ok.t > restored.t}
    assert before
    assert after
    assert not before & after
    lost = [ok for ok in events if isinstance(ok, e.Ok) and restored.copied_at < ok.t < restored.t]
    assert lost, "something was acknowledged that the copy does not have"
