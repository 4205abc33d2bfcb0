"""What `parley chat` takes on its command line, and what it takes from the environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.address import Address, parse_address

PASSWORD_FILE_BYTES_MAX = 4096
"""A password has at most 128 characters; a file that is longer is not one."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the chat program was told. `address` is None where the default is to be found; `others` stand in for it."""

    address: Address | None
    others: tuple[Address, ...] = ()
    home: Path
    ca: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    room: str | None = None
    is_plain: bool = False
    registers: bool = False
    has_colour: bool = True
    downloads: Path | None = None


def parser() -> argparse.ArgumentParser:
    """The parser of `parley chat`."""
    made = argparse.ArgumentParser(
        prog="parley chat",
        description="Chat in the terminal. With --plain, or without a terminal: each line of the standard input is "
        "sent (or run, if it begins with /), and what others say is written to the standard output; at the end of the "
        "input it waits until everything is acknowledged, and ends with status 0, or 1 and a reason on the standard "
        "error.",
    )
    made.add_argument(
        "address",
        nargs="?",
        metavar="HOST[:PORT][,HOST[:PORT]…]",
        help="the server, by one address or several, of which any will do; default: the one on this machine",
    )
    made.add_argument("--plain", action="store_true", help="lines in, lines out; for pipes and programs")
    made.add_argument("--user", metavar="NAME", help="log in as NAME")
    made.add_argument("--password-file", type=Path, metavar="FILE", help="where the password is; default: ask")
    made.add_argument("--register", action="store_true", help="make the account first where it does not exist")
    made.add_argument("--room", metavar="ROOM", help="enter this room")
    made.add_argument("--ca", type=Path, metavar="FILE", help="the certificate authority that vouches for the server")
    made.add_argument(
        "--home", type=Path, default=Path(), metavar="DIR", help="home of a stack on this machine; default: ."
    )
    made.add_argument(
        "--downloads", type=Path, metavar="DIR", help="where fetched files go; default: Downloads in your home"
    )
    made.add_argument("--no-color", action="store_true", help="no colours; so does the variable NO_COLOR")
    return made


def read_options(argv: Sequence[str], *, environ: Mapping[str, str], is_terminal: bool) -> Options:
    """Reads the command line; `is_terminal`: input and output are one. Ends the program where the line is wrong."""
    made = parser()
    given = made.parse_args(argv)
    try:
        addresses = [parse_address(each) for each in given.address.split(",")] if given.address else []
        password = read_password(given.password_file) if given.password_file else None
    except ValueError as error:
        made.error(str(error))
    is_plain = given.plain or not is_terminal
    if given.user is None and (given.password_file or given.register):
        made.error("--password-file and --register need --user NAME")
    if is_plain and given.user is not None and password is None:
        made.error("without a terminal nobody can be asked for the password: give --password-file FILE")
    return Options(
        address=addresses[0] if addresses else None,
        others=tuple(addresses[1:]),
        home=given.home,
        ca=given.ca,
        username=given.user,
        password=password,
        room=given.room,
        is_plain=is_plain,
        downloads=given.downloads.absolute() if given.downloads else None,
        registers=given.register,
        has_colour=is_terminal and not given.no_color and not environ.get("NO_COLOR"),
    )


def read_password(path: Path) -> str:
    """The content of a password file without the line end that editors add. Raises ValueError."""
    try:
        with path.open("rb") as file:
            content = file.read(PASSWORD_FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8") from error
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or len(content) > PASSWORD_FILE_BYTES_MAX:
        raise ValueError(f"{path}: not a password: it is {'too long' if password else 'empty'}")
    return password
