"""`parley`: one command for everything. Each sub-command imports what it needs when it is chosen."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.failures import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SOURCES = Path(__file__).resolve().parent.parent
FAILED = 1
INTERRUPTED = 130  # 128 and the signal's number, as shells have it

# These have arguments of their own, with their own --help.
_FORWARDED = {
    "chat": "the chat client: parley chat [HOST[:PORT]] [--plain]",
    "admin": "look into a running stack: parley admin [--home DIR] COMMAND",
    "bench": "measure (needs the source tree)",
    "check": "prove the delivery promise of a stack (needs the source tree)",
    "ghz": "call a service as a ghz configuration says (needs the source tree)",
}

# These live beside the tests, and run from the source tree.
_IN_TESTS = {"bench": "tests.bench", "check": "tests.chaos", "ghz": "tests.ghz"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in _FORWARDED:
        return _forward(arguments[0], arguments[1:])
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except StartError as error:
        print(f"parley: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parley", description="Self-hosted chat for the terminal.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    from deploy.local import certs, options

    up = commands.add_parser("up", help="run the whole stack on this machine, in the foreground")
    options.add_arguments(up)
    up.set_defaults(run=_up)

    certs_parser = commands.add_parser("certs", help="make, show and renew certificates")
    certs.add_arguments(certs_parser)
    certs_parser.set_defaults(run=certs.run)

    backup = commands.add_parser("backup", help="copy everything that people have, while the stack runs or not")
    restore = commands.add_parser("restore", help="put a backup in the place of a stack that is down")
    from deploy.backup import arguments

    arguments.add_backup(backup)
    backup.set_defaults(run=_backup)
    arguments.add_restore(restore)
    restore.set_defaults(run=_restore)

    for name, text in _FORWARDED.items():
        commands.add_parser(name, help=text)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"parley {version('parley')}")
        parser.exit()


def _up(parsed: argparse.Namespace) -> int:
    from deploy.local import options, up

    return up.run(options.from_arguments(parsed))


def _backup(parsed: argparse.Namespace) -> int:
    from deploy.backup import command

    return command.run_backup(parsed)


def _restore(parsed: argparse.Namespace) -> int:
    from deploy.backup import command

    return command.run_restore(parsed)


def _forward(command: str, arguments: list[str]) -> int:
    if command == "chat":
        from client.client import main as chat

        return chat(arguments)
    if command == "admin":
        from client.admin import main as admin

        return admin(arguments)
    module = _IN_TESTS[command]
    if not (SOURCES.joinpath(*module.split(".")) / "__main__.py").is_file():
        raise SystemExit(f"parley: `{command}` is part of the source tree, and this installation has none")
    return subprocess.run(  # noqa: S603 -- the person's own arguments
        [sys.executable, "-m", module, *arguments], cwd=SOURCES, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
