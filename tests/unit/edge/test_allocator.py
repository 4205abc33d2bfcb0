from __future__ import annotations

import platform
import subprocess
import sys


def test_large_blocks_are_kept_apart_where_the_c_library_can() -> None:
    code = "from services.edge.allocator import keep_large_blocks_apart as f; print(f())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")


def test_the_collector_leaves_the_old_alone() -> None:
    spared = "import gc; from services.edge.allocator import spare_the_old as f; f()"
    code = f"{spared}; print(gc.get_freeze_count(), gc.get_threshold()[2])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    frozen, old_from = map(int, done.stdout.split())
    assert frozen > 0
    assert old_from > 1_000_000
