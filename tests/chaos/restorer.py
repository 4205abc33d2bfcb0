"""An older copy takes the database's place: `parley backup` while people talk, and later `parley restore`."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.helpers.stack import ROOT, Stack, parley

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.recorder.board import Board

DRAIN_S = 0.5  # for what the clients have not read yet when the stack is down
COMMAND_S = 60.0


class RestoreError(Exception):
    """A command failed; the message is what it said."""


class Restorer:
    """Backs up and restores a stack of the run's own. `database` are the options of both commands."""

    def __init__(self, stack: Stack, database: Sequence[str] = ()) -> None:
        self._stack = stack
        self._database = database
        self._copy = stack.home / "backup"

    async def back_up(self) -> None:
        """Makes the copy, while everything goes on. Raises RestoreError."""
        await self._parley("backup", str(self._copy))

    async def restore(self, board: Board, copied_at: float) -> None:
        """Stops everything, puts the copy into the database's place, starts everything. Raises RestoreError."""
        await asyncio.to_thread(self._stack.stop)
        await asyncio.sleep(DRAIN_S)
        board.log.write(e.Restored, copied_at=copied_at)
        board.newest.clear()
        board.files = {file_id: file for file_id, file in board.files.items() if file.t < copied_at}
        await self._parley("restore", str(self._copy), "--overwrite")
        await asyncio.to_thread(self._stack.start)
        await asyncio.to_thread(shutil.rmtree, self._copy)

    async def _parley(self, *arguments: str) -> None:
        command = parley(*arguments, "--home", str(self._stack.home), *self._database)
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S
        )
        if done.returncode != 0:
            raise RestoreError(f"{arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
