from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics.graph_data import GraphData
from services.metrics.painter import Painter
from tests.helpers.instances import T0, sample

DATA = GraphData(T0, [sample(T0 - 60), sample(T0)], {int(T0 // 3600): 5})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matplotlib")


@pytest.fixture
def painter(tmp_path: Path, cache: Path) -> Painter:
    return Painter(tmp_path / "graphs", cache=cache)


async def test_another_process_draws_while_the_loop_goes_on(painter: Painter, tmp_path: Path) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    watcher = asyncio.create_task(count_turns())
    paths = await painter.draw(DATA)
    watcher.cancel()
    assert [path.parent for path in paths] == [tmp_path / "graphs"] * 3
    assert all(path.stat().st_size > 5_000 for path in paths)
    assert turns > 20  # drawing takes a second and more


async def test_one_drawing_at_a_time(painter: Painter) -> None:
    first = asyncio.create_task(painter.draw(DATA))
    await asyncio.sleep(0)
    with pytest.raises(ParleyError) as caught:
        await painter.draw(DATA)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.retry_after_s
    assert len(await first) == 3
    assert len(await painter.draw(DATA)) == 3


async def test_a_drawing_that_takes_too_long_is_ended(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(ParleyError) as caught:
        await painter.draw(DATA, limit_s=0.05)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert not _children()
    assert not _pictures(tmp_path)


async def test_a_drawing_ends_with_whoever_wanted_it(painter: Painter) -> None:
    drawing = asyncio.create_task(painter.draw(DATA))
    while not _children():  # noqa: ASYNC110 - there is no event for the birth of a process
        await asyncio.sleep(0.01)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    assert not _children()


async def test_a_drawing_that_fails_is_an_error(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "graphs").write_text("not a directory")
    with pytest.raises(ParleyError) as caught:
        await Painter(tmp_path / "graphs", cache=cache).draw(DATA)
    assert caught.value.code is ErrorCode.INTERNAL


def _children() -> list[str]:
    """The drawing processes that run now; other tests of this process may have children of their own."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in pids if b"services.metrics.graphs" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _pictures(directory: Path) -> list[Path]:
    return list(directory.glob("graphs/*.png"))
