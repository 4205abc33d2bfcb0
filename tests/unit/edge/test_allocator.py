from __future__ import annotations

import gc
import platform
import subprocess
import sys

from services.edge.allocator import spare_the_old


def test_large_blocks_are_kept_apart_where_the_c_library_can() -> None:
    code = "from services.edge.allocator import keep_large_blocks_apart as f; print(f())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")


def test_the_collector_leaves_the_old_alone() -> None:
    before = gc.get_threshold()
    try:
        spare_the_old()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[2] > 1_000_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
