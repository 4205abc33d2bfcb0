"""Background tasks that are held, named, and whose failures are logged.

The event loop keeps only weak references to tasks, and a failed task that nobody awaits says nothing until it is
collected. A `TaskSet` keeps its tasks until they are done, logs a failure once, and ends them all together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from services.common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
_log = get_logger(__name__)


class TaskSet:
    """A set of tasks with one owner, who closes it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Starts a task. Raises RuntimeError once the set is closed."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"cannot start {name}: the tasks of its owner have ended")
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancels all tasks and waits until they have ended. Idempotent; a task may close its own set."""
        self._closed = True
        current = asyncio.current_task()
        while others := [task for task in self._tasks if task is not current]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
