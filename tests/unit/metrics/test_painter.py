from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics.catalogue import NAMES
from services.metrics.graph_data import DAY_S, HOUR_S, GraphData
from services.metrics.painter import Painter
from tests.helpers.instances import T0, sample

DATA = [GraphData(T0, [sample(T0 - 60), sample(T0)], {int(T0 // 3600): 5})]
PICTURES = 2 * len(NAMES)


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
            await asyncio.sleep(0.001)
            turns += 1

    watcher = asyncio.create_task(count_turns())
    paths = await painter.draw(DATA)
    watcher.cancel()
    assert [path.parent for path in paths] == [tmp_path / "graphs"] * PICTURES
    assert all(path.stat().st_size > 5_000 for path in paths)
    assert turns > 20  # drawing takes a second and more


async def test_one_drawing_at_a_time(painter: Painter) -> None:
    first = asyncio.create_task(painter.draw(DATA))
    await asyncio.sleep(0)
    with pytest.raises(ParleyError) as caught:
        await painter.draw(DATA)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.retry_after_s
    assert len(await first) == PICTURES
    assert len(await painter.draw(DATA)) == PICTURES


async def test_a_drawing_that_takes_too_long_is_ended(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(ParleyError) as caught:
        await painter.draw(DATA, limit_s=0.05)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert not _children()
    assert not _pictures(tmp_path)


async def test_a_drawing_ends_with_whoever_wanted_it(painter: Painter) -> None:
    drawing = asyncio.create_task(painter.draw(DATA))
    while not _children():  # noqa: ASYNC110 - there is no event for the birth of a process
        await asyncio.sleep(0)  # at every turn: it is there before it is told what to draw
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    assert not _children()


async def test_a_drawing_that_fails_is_an_error(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "graphs").write_text("not a directory")
    with pytest.raises(ParleyError) as caught:
        await Painter(tmp_path / "graphs", cache=cache).draw(DATA)
    assert caught.value.code is ErrorCode.INTERNAL


async def test_a_process_that_was_begun_before_draws_next(painter: Painter) -> None:
    await painter.warm_up()
    await painter.warm_up()
    (child,) = _children()
    drawing = asyncio.create_task(painter.draw(DATA, limit_s=55.0))
    await asyncio.sleep(0)
    assert _children() == [child]
    assert len(await drawing) == PICTURES
    assert not _children()


async def test_one_that_was_begun_in_vain_is_ended(painter: Painter) -> None:
    await painter.warm_up()
    await painter.close()
    assert not _children()
    await painter.close()


async def test_one_that_has_died_meanwhile_does_no_harm(painter: Painter) -> None:
    await painter.warm_up()
    assert painter._warm is not None
    painter._warm.kill()
    await painter._warm.wait()
    assert len(await painter.draw(DATA)) == PICTURES


async def test_a_picture_is_there_when_it_was_drawn(painter: Painter) -> None:
    assert painter.picture(NAMES[0], DAY_S, "png") is None
    await painter.draw(DATA)
    assert (painter.picture(NAMES[0], DAY_S, "png") or b"").startswith(b"\x89PNG")
    assert painter.picture(NAMES[0], HOUR_S, "png") is None


def _children() -> list[str]:
    """The drawing processes that run now; other tests of this process may have children of their own."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in pids if b"services.metrics.graphs" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _pictures(directory: Path) -> list[Path]:
    return list(directory.glob("graphs/*.png"))
