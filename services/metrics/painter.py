"""painter: has the graphs drawn by a process of its own, one drawing at a time, each with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.metrics.graph_data import encode
from services.metrics.graphs import file_name

if TYPE_CHECKING:
    from services.metrics.graph_data import GraphData

# Three seconds on a quiet machine, six when matplotlib looks through the fonts for the first time.
DRAW_S_MAX = 60.0
# Chat goes before pictures.
_NICENESS = 10
# What a failed drawing may say into the log.
_MESSAGE_BYTES_MAX = 2_000
_RETRY_AFTER_S = 5.0
# Where the child finds the `services` package, however this process found it.
_IMPORT_ROOT = Path(__file__).resolve().parents[2]
_log = get_logger(__name__)


class Painter:
    """Draws into one directory.

    Args:
        directory: Where the pictures go; made when it is missing.
        cache: Where matplotlib keeps its list of fonts.
    """

    def __init__(self, directory: Path, *, cache: Path) -> None:
        self._directory = directory
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_IMPORT_ROOT), os.environ.get("PYTHONPATH")))),
            "MPLCONFIGDIR": str(cache),
            "MPLBACKEND": "Agg",
        }
        self._cache = cache
        self._is_drawing = False
        self._warm: asyncio.subprocess.Process | None = None

    def picture(self, name: str, period_s: int, picture_format: str) -> bytes | None:
        """The picture that was drawn last; None where there is none. Blocks for a disk read."""
        try:
            return (self._directory / file_name(name, period_s, picture_format)).read_bytes()
        except FileNotFoundError:
            return None

    async def warm_up(self) -> None:
        """A drawing will be wanted soon: begin to load what it takes. Once; the next drawing makes use of it."""
        if self._warm is None and not self._is_drawing:
            self._warm = await self._start(0)

    async def close(self) -> None:
        """End what was begun and is not wanted any more."""
        warm, self._warm = self._warm, None
        if warm is not None:
            await _end(warm)

    async def draw(self, data: list[GraphData], *, limit_s: float = DRAW_S_MAX) -> list[Path]:
        """Draw all graphs and return their paths.

        Raises ParleyError: `unavailable` while another drawing is under way or when this one takes too long,
        `internal` when it fails. Cancelling it ends the drawing.
        """
        if self._is_drawing:
            raise ParleyError(ErrorCode.UNAVAILABLE, "a drawing is under way", retry_after_s=_RETRY_AFTER_S)
        self._is_drawing = True
        try:
            # A short limit is that of a process which is about to end: nobody else is in a hurry then.
            return await self._run(encode(data), limit_s, _NICENESS if limit_s >= DRAW_S_MAX else 0)
        finally:
            self._is_drawing = False

    async def _start(self, niceness: int) -> asyncio.subprocess.Process:
        await asyncio.to_thread(self._cache.mkdir, parents=True, exist_ok=True)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "services.metrics.graphs", str(self._directory), str(niceness)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )

    async def _run(self, text: bytes, limit_s: float, niceness: int) -> list[Path]:
        process, self._warm = self._warm, None
        if process is None or process.returncode is not None:
            process = await self._start(niceness)
        try:
            async with asyncio.timeout(limit_s):
                output, errors = await process.communicate(text)
        except TimeoutError:
            raise ParleyError(ErrorCode.UNAVAILABLE, f"drawing took longer than {limit_s:g} s") from None
        finally:
            await _end(process)
        if process.returncode != 0:
            message = errors[-_MESSAGE_BYTES_MAX:].decode("utf-8", "replace")
            _log.error("drawing failed", status=process.returncode, output=message)
            raise ParleyError(ErrorCode.INTERNAL, "drawing failed")
        return [Path(line) for line in output.decode().splitlines()]


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
