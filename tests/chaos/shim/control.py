"""Builds the preloaded library, and tells it what to do, through a file that all processes of a stack map."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from enum import IntEnum
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).with_name("faults.c")
CELLS = (  # as in faults.c
    "clock_ns",
    "disk_of_rooms",
    "disk_of_auth",
    "disk_of_postgres",
    "kill_countdown",
    "kill_when",
    "counted",
)
SIZE = 4_096


class Disk(IntEnum):
    """What becomes of writes to files."""

    WORKS = 0
    FULL = 1
    SYNC_FAILS = 2


class When(IntEnum):
    """Whether the process dies before or after the system call."""

    BEFORE = 0
    AFTER = 1


def is_available() -> bool:
    """Whether there is a C compiler to build it with."""
    return shutil.which("cc") is not None


class Control:
    """One control file with its library, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "faults"
        self._library = folder / "faults.so"
        self._path.write_bytes(bytes(SIZE))
        self._path.chmod(0o666)  # a database runs as another user
        build = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(build, check=True)
        with self._path.open("r+b") as file:
            self._cells = mmap.mmap(file.fileno(), SIZE)

    @property
    def environment_of_postgres(self) -> dict[str, str]:
        """What PostgreSQL's environment needs; the folder must be open to its user."""
        return {**self.environment, "PARLEY_TEST_FAULTS_OF_POSTGRES": "1"}

    @property
    def environment(self) -> dict[str, str]:
        """What the services' environment needs."""
        return {"LD_PRELOAD": str(self._library), "PARLEY_TEST_FAULTS": str(self._path)}

    def set(self, cell: str, value: int) -> None:
        """Tells all processes at once."""
        struct.pack_into("q", self._cells, 8 * CELLS.index(cell), value)

    def get(self, cell: str) -> int:
        """What stands there."""
        return int(struct.unpack_from("q", self._cells, 8 * CELLS.index(cell))[0])

    def close(self) -> None:
        """Unmaps it."""
        self._cells.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
