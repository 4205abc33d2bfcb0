"""Memory: the C library's allocator and Python's collector, told how the edge uses it.

glibc takes large blocks from the heap once it has seen one freed, between small ones that live long, and a heap in
pieces is never given back. With such blocks kept apart, as glibc does at first, they go when they are freed.

The collector looks for circles of objects. A full look at an edge with 5,000 connections stops it for 50 to 100 ms, for
nothing: what ends a connection also breaks its circles (tests/integration/edge/test_memory.py). So it looks at what is
young, in small portions, and never at everything.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_THRESHOLD_BYTES: Final = 128 * 1024  # glibc's own first value; setting it keeps it from moving

_YOUNG: Final = 5_000  # new objects that are looked at in one go: 2 ms
_PORTIONS: Final = 5  # of these, before their survivors are looked at once more: 5 ms
_NEVER: Final = 1_000_000_000


def spare_the_old() -> None:
    """Keep the collector from what lives already and from what will live long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _PORTIONS, _NEVER)


def keep_large_blocks_apart() -> bool:
    """Give large blocks pages of their own. Returns False where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES))
