"""The chat program: `parley chat`, `python -m client` and `python client/client.py` all run this."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put this folder first, where this very file would be found as the package `client`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.arguments import Options

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 and the signal's number."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the chat program with the arguments behind its name; returns its exit status."""
    from client.arguments import read_options

    options = read_options(
        sys.argv[1:] if argv is None else argv,
        environ=os.environ,
        is_terminal=sys.stdin.isatty() and sys.stdout.isatty(),
    )
    try:
        return asyncio.run(_run(options))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(options: Options) -> int:
    if options.is_plain:
        from client.plain import run as plain

        return await plain.run(options)
    from client.tui import run as tui  # prompt_toolkit takes a while to load, and a pipe has no use for it

    return await tui.run(options)


if __name__ == "__main__":
    sys.exit(main())
