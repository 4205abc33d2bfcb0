"""A file of 64 MB through ten cuts. `python tests/file_cuts_test.py` measures what 1 GB and fifty cuts cost."""

from __future__ import annotations

from pathlib import Path

from tests.file_cuts_test import MORE_MEMORY_MAX, run
from tests.helpers.stack import Stack

SIZE = 64_000_000
CUTS = 10
WINDOW = 1_048_576  # `file_window_bytes`: what may be on its way, and so be lost, when a link is cut
FRAMING = 0.005  # of the file: TLS, frames, and what else the links carry


async def test_a_file_passes_links_that_are_cut(own_stack: Stack, tmp_path: Path) -> None:
    figures = await run(own_stack, tmp_path, SIZE, CUTS, patience_s=120.0)
    assert figures.is_same, str(figures)
    assert figures.cuts == CUTS
    # Never more than what was on its way is sent twice. How much that is on average, the script measures.
    most = SIZE * (1 + FRAMING) + CUTS // 2 * WINDOW
    assert max(figures.up_bytes, figures.down_bytes) < most, str(figures)
    assert max(figures.sender_more, figures.receiver_more, figures.edge_more) < MORE_MEMORY_MAX, str(figures)
