"""The C library's allocator, told how the edge uses memory.

uvloop holds a buffer of 256 KiB for each TLS connection, of which an idle one touches a page or two. glibc takes such a
block from the heap once it has seen one freed, and then from pages that other blocks have just used and left: measured,
an idle connection costs 48 KiB. With blocks of that size kept apart, as glibc does at first, it costs 26.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_THRESHOLD_BYTES: Final = 128 * 1024  # glibc's own first value; setting it keeps it from moving


def keep_large_blocks_apart() -> bool:
    """Give large blocks pages of their own. Returns False where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES))
