"""The operators' command as a program: reads the command line, opens the channels, shows what goes wrong."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines say less than the error that follows
    from client import display
    from client.admin.arguments import parser
    from client.admin.channels import open_stack
    from client.admin.failures import AdminError
    from client.admin.report import Context

    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        context = Context(
            open_stack(arguments.home, arguments.identity),
            as_json=arguments.json,
            is_sure=arguments.yes,
            ask=_ask,
            ask_secret=_ask_secret,
        )
        arguments.run(context, arguments)
    except AdminError as problem:
        for line in display.error(f"{problem.message} ({problem.code})"):
            print(line.render(colour=False), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return 0


def _ask_secret(question: str) -> str | None:
    if not sys.stdin.isatty():
        return None
    from getpass import getpass

    try:
        return getpass(question)
    except EOFError:
        return None


def _ask(question: str) -> str | None:
    if not sys.stdin.isatty():
        return None
    try:
        return input(question)
    except EOFError:
        return None
