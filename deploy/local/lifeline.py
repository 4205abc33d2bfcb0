"""Ties a child process to its parent, so that it cannot be orphaned, not even by a `kill -9` of the parent.

On Linux the kernel does it. Elsewhere a killed supervisor leaves its services running, and a lock on the home
(see `lock`) keeps a second stack from starting beside them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Looked up here because little may be done between fork and exec.
_libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def tie_to(parent: int, *, number: signal.Signals = signal.SIGKILL) -> None:
    """Has this process sent `number` when the thread of `parent` that forked it ends.

    Runs in the child, between fork and exec.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
