"""Profiles: where the server's processes spend their time during the measured part of a workload, by `perf`.

Sampled on the CPU clock of every thread that the server has, so that what else the machine does is not in it.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_HERTZ: Final = 1_999
"""Not a divisor of anything that happens regularly."""

_SHOWN_PERCENT: Final = 1.0

_LIBRARIES: Final = {
    "[kernel.kallsyms]": "kernel",
    "libcrypto": "libcrypto (AES)",
    "libssl": "libssl",
    "libc.so": "libc",
    "libpython": "interpreter",
    "python": "interpreter",
    "libsqlite3": "SQLite",
    "cygrpc": "gRPC",
    "_message": "protobuf",
    "loop.cpython": "uvloop",
    "_core.cpython": "msgspec",
}


def is_available() -> bool:
    return shutil.which("perf") is not None


@asynccontextmanager
async def recording(pids: Sequence[int], file: Path) -> AsyncIterator[None]:
    """Records these processes while the block runs."""
    recorder = await asyncio.create_subprocess_exec(
        *("perf", "record", "--quiet", "-F", str(_HERTZ), "-e", "cpu-clock", "-o", str(file)),
        *("-p", ",".join(map(str, pids))),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        if recorder.returncode is None:
            recorder.terminate()
        await recorder.wait()


def shares(file: Path, names: dict[int, str]) -> dict[tuple[str, str], float]:
    """Percent of all samples by process (as `names` calls it) and library, without what is below a hundredth."""
    report = subprocess.run(
        ["perf", "script", "-i", str(file), "-F", "pid,ip,sym,dso"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for line in report.splitlines():
        fields = line.split()
        if len(fields) < 3 or not fields[0].isdigit():
            continue
        library = fields[-1].strip("()").rpartition("/")[2]
        kind = next((kind for prefix, kind in _LIBRARIES.items() if library.startswith(prefix)), "the rest")
        counts[names.get(int(fields[0]), "others"), kind] += 1
    total = sum(counts.values()) or 1
    percents = {key: 100 * count / total for key, count in counts.items()}
    return {key: percent for key, percent in percents.items() if percent >= _SHOWN_PERCENT}


def table(found: dict[tuple[str, str], float]) -> str:
    """The shares, largest first."""
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return "\n".join(f"    {percent:5.1f} %  {process:8} {kind}" for (process, kind), percent in ordered)
