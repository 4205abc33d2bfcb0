"""One stack per home: an advisory lock that lives exactly as long as the stack's processes.

The supervisor takes the lock and its children inherit it, so that after a `kill -9` of the supervisor nobody can
start a second stack on the same databases before the last process of the first one is gone.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from deploy.local.failures import StartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DYING_S = 5.0  # how long the processes of a killed supervisor may take to disappear
POLL_S = 0.05


class HomeLock:
    """A held lock; `descriptor` is what children inherit."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Lets go of it. It stays locked while a child still holds it."""
        os.close(self.descriptor)


def acquire(path: Path, *, home: Path, sleep: Callable[[float], None] = time.sleep) -> HomeLock:
    """Takes the lock at `path`.

    Refuses at once when the supervisor that holds it lives; when only its dying children do, waits for them.
    Raises StartError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waited_s = 0.0
        while not _try_lock(descriptor):
            holder = _holder(descriptor)
            if waited_s >= DYING_S or (holder is not None and _is_alive(holder)):
                raise StartError(f"another `parley up` (process {holder or 'unknown'}) already uses {home}")
            sleep(POLL_S)
            waited_s += POLL_S
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return HomeLock(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int | None:
    text = os.pread(descriptor, 20, 0)
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
