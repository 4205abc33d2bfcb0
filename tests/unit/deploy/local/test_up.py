from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest

from deploy.local import up
from deploy.local.failures import StartError
from deploy.local.options import Options


def test_the_ready_line_says_how_to_go_on() -> None:
    line = up.ready_line(Options(home=Path("/x"), port=9000, edges=3))
    assert line.startswith("ready on 127.0.0.1:9000 (and 2 more);")
    assert "parley chat --home /x;" in line
    assert "\n" not in line


def test_the_ready_line_is_short_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "parley chat;" in up.ready_line(Options(home=Path.cwd()))
    monkeypatch.setattr(up.shutil, "which", lambda _: None)
    monkeypatch.setattr(up.sys, "argv", [".venv/bin/parley", "up"])
    assert ".venv/bin/parley chat;" in up.ready_line(Options(home=Path.cwd()))


async def test_the_first_signal_stops_and_a_later_one_means_now(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = asyncio.Event()
    stop = up._stop_event(then=impatient.set)
    for number in up.STOP_SIGNALS:  # `timeout` sends several at once
        os.kill(os.getpid(), number)
    await asyncio.wait_for(stop.wait(), 10)
    await asyncio.sleep(0)
    assert not impatient.is_set()
    monkeypatch.setattr(up, "IMPATIENT_S", 0.0)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(impatient.wait(), 10)
    for number in up.STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_what_fails_ends_the_run_and_what_is_stopped_is_cancelled() -> None:
    async def fail() -> None:
        raise StartError("no")

    ended = asyncio.Event()

    async def last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(StartError, match="no"):
        await up._until(asyncio.Event(), fail())
    stop = asyncio.Event()
    running = asyncio.create_task(up._until(stop, last()))
    await asyncio.sleep(0)
    stop.set()
    await running
    assert ended.is_set()


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(up.os, "umask", lambda _: 0)
    with pytest.raises(StartError, match="--home"):
        up.run(Options(home=file / "below"))


def test_open_files_are_allowed_as_far_as_possible() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        up._allow_many_connections()
        expected = up.OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, up.OPEN_FILES)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
