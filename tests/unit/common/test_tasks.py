from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from services.common.tasks import TaskSet


async def fail() -> None:
    raise ValueError("broken")


async def test_a_result_is_there_and_the_task_is_let_go() -> None:
    tasks = TaskSet()
    task = tasks.spawn(asyncio.sleep(0, "done"), name="short")
    assert (len(tasks), task.get_name()) == (1, "short")
    assert await task == "done"
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_failure_is_logged_once_with_its_name() -> None:
    tasks = TaskSet()
    with capture_logs() as logs:
        tasks.spawn(fail(), name="unlucky")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [(log["event"], log["task"], str(log["exc_info"])) for log in logs] == [("task failed", "unlucky", "broken")]


async def test_closing_cancels_and_waits_for_what_is_cleaned_up() -> None:
    tasks = TaskSet()
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned")

    tasks.spawn(work(), name="worker")
    await asyncio.sleep(0)
    with capture_logs() as logs:
        await tasks.close()
        await tasks.close()
    assert (steps, logs) == (["cleaned"], [])


async def test_nothing_starts_in_a_closed_set() -> None:
    tasks = TaskSet()
    await tasks.close()
    with pytest.raises(RuntimeError, match="late"):
        tasks.spawn(asyncio.sleep(0), name="late")


async def test_a_task_may_close_its_own_set() -> None:
    tasks = TaskSet()
    other = tasks.spawn(asyncio.Event().wait(), name="other")
    await tasks.spawn(tasks.close(), name="closer")
    assert other.cancelled()
