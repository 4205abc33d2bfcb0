"""The command lines of `parley backup` and `parley restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.options import add_server

if TYPE_CHECKING:
    import argparse


def add_backup(parser: argparse.ArgumentParser) -> None:
    """Declares what `command.run_backup` reads."""
    parser.add_argument("target", type=Path, metavar="TARGET", help="the folder to make; must not exist")
    _add_place(parser)
    parser.add_argument("--certificates", action="store_true", help="with the authorities' keys: guard it well")


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Declares what `command.run_restore` reads."""
    parser.add_argument("backup", type=Path, metavar="BACKUP", help="a folder that `parley backup` made")
    _add_place(parser)
    parser.add_argument("--certificates", action="store_true", help="restore them too")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--check", action="store_true", help="only verify the backup")
    parser.add_argument("--digest", metavar="HEX", help="what `parley backup` printed: refuse any other backup")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, default=Path(), metavar="DIR", help="the stack's home (default: .)")
    add_server(parser, "database", "PostgreSQL, as for `parley up` (default: SQLite files in the home)")
