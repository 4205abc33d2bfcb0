"""A file of 64 MB through ten cuts; `python tests/file_cuts_test.py` does the same with 1 GB and fifty."""

from __future__ import annotations

from pathlib import Path

from tests.file_cuts_test import run
from tests.helpers.stack import Stack


async def test_a_file_passes_links_that_are_cut(own_stack: Stack, tmp_path: Path) -> None:
    figures = await run(own_stack, tmp_path, 64_000_000, 10, patience_s=120.0)
    assert figures.is_good, str(figures)
    assert figures.cuts == 10
