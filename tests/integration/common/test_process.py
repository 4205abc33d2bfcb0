"""The life of a process, with real signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio
from services.common.config import ConfigError
from services.common.process import Stop, run

async def fail():
    raise ValueError("nobody awaits this")

async def main(stop: Stop) -> None:
{body}

run(main, service="test")
"""


def program(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    _, errors = process.communicate(timeout=30)
    return process.returncode, [json.loads(line) for line in errors.splitlines()]


WAIT = "    print('up', flush=True)\n    await stop.wait()\n"


def read_up(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_it_to_stop_and_it_ends_well(number: signal.Signals) -> None:
    process = program(WAIT)
    read_up(process)
    process.send_signal(number)
    status, lines = finish(process)
    assert (status, [(line["event"], line["signal"]) for line in lines]) == (0, [("stopping", number.name)])


def test_a_second_signal_ends_it_at_once() -> None:
    process = program(WAIT + "    print('up', flush=True)\n    await asyncio.Event().wait()\n")
    for _ in range(2):
        read_up(process)
        process.send_signal(signal.SIGTERM)
    status, lines = finish(process)
    assert (status, lines[-1]["event"]) == (1, "ended at once by a second signal")


def test_it_runs_on_uvloop_and_ends_when_main_does() -> None:
    status, lines = finish(program("    assert 'uvloop' in type(asyncio.get_running_loop()).__module__"))
    assert (status, lines) == (0, [])


def test_a_failure_is_logged_and_shows_in_the_status() -> None:
    status, lines = finish(program("    raise ValueError('broken')"))
    assert (status, lines[0]["event"], lines[0]["level"]) == (1, "process failed", "critical")
    assert "ValueError: broken" in lines[0]["exception"]


def test_a_bad_configuration_is_one_line_and_a_status_of_its_own() -> None:
    status, lines = finish(program("    raise ConfigError('PARLEY_X', 'is bad')"))
    assert (status, len(lines), lines[0]["event"]) == (2, 1, "configuration: PARLEY_X: is bad")
    assert "exception" not in lines[0]


def test_what_nobody_awaited_is_logged() -> None:
    body = (
        "    task = asyncio.create_task(fail())\n    await asyncio.sleep(0)\n    del task\n    import gc; gc.collect()"
    )
    status, lines = finish(program(body))
    assert (status, "nobody awaits this" in lines[0]["exception"]) == (0, True)
