"""`parley admin`: what operators see and change in a running stack, over gRPC with their own certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the operators' command with the arguments behind its name; returns its exit status."""
    from client.admin.program import main as run

    return run(argv)
