"""The command line of `parley admin`: a tree of commands, each with what it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from client.admin import accounts, edges, graphs, processes, rooms, statistics, top, traces

LIMIT = 1000
"""Entries of a list where nobody asked for more; a terminal holds no more of them anyway."""

DRAIN_S_MAX = 60.0
INTERVALS_S = (0.2, 60.0)
LEVELS = ("debug", "info", "warning", "error", "critical")
CLASSES = ("critical", "high", "normal", "low")


def parser() -> argparse.ArgumentParser:
    """The parser; the chosen command's function is in `run`."""
    made = argparse.ArgumentParser(prog="parley admin", description="See and change what goes on in a running stack.")
    _add_common(made, is_top=True)
    common = argparse.ArgumentParser(add_help=False)
    _add_common(common, is_top=False)
    commands = made.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)

    def add(where: _Commands, name: str, run: object, text: str) -> argparse.ArgumentParser:
        one = where.add_parser(name, help=text, description=text, parents=[common])
        one.set_defaults(run=run)
        return one

    group = _group(commands, "accounts", "accounts: list, show, disable, enable, set-password, sessions, …")
    _add_listing(add(group, "list", accounts.list_accounts, "list accounts by name"))
    for name, run, text in (
        ("show", accounts.show, "show one account"),
        ("disable", accounts.disable, "disable an account and end its sessions"),
        ("enable", accounts.enable, "enable an account again"),
        ("revoke", accounts.revoke, "end all sessions of an account"),
        ("unlock", accounts.unlock, "forget the failed logins of an account"),
    ):
        add(group, name, run, text).add_argument("user", metavar="USER")
    one = add(group, "set-password", accounts.set_password, "give an account another password, and end its sessions")
    one.add_argument("user", metavar="USER")
    one.add_argument("--password-file", type=Path, metavar="FILE", help="its first line; default: asks")
    one = add(group, "sessions", accounts.list_sessions, "list sessions, the newest first")
    one.add_argument("user", nargs="?", metavar="USER", help="default: the open ones of everybody")
    one.add_argument("--limit", type=_positive, default=LIMIT, metavar="N", help=f"default: {LIMIT}")

    _add_rooms(commands, add)
    one = add(commands, "connections", edges.list_connections, "list the connections of all edges")
    one.add_argument("action", nargs="?", choices=["list"], help="what it does anyway")
    _add_edge(one)
    one.add_argument("--limit", type=_positive, default=LIMIT, metavar="N", help=f"of each edge; default: {LIMIT}")
    one = add(commands, "disconnect", edges.disconnect, "close a connection")
    one.add_argument("connection", metavar="ID", help="as `connections` shows it")
    _add_edge(one)

    group = _group(commands, "qos", "the edges' schedulers: show, set")
    _add_edge(add(group, "show", edges.show_qos, "show targets, shares, and what waits"))
    one = add(group, "set", edges.set_qos, "change the schedulers while they run")
    _add_edge(one)
    one.add_argument("--concurrency", type=_positive, metavar="N", help="requests under way at a time")
    one.add_argument("--target", type=_target, action="append", default=[], metavar="CLASS=MS", help="latency target")
    one.add_argument("--share", type=_share, action="append", default=[], metavar="CLASS=N", help="how many may wait")

    _add_processes(commands, add)
    _add_numbers(commands, add)
    _add_tracing(commands, add)
    return made


def _add_numbers(commands: _Commands, add: Callable[..., argparse.ArgumentParser]) -> None:
    add(commands, "stats", statistics.show, "show the statistics as they stand now")
    for name, run, text in (
        ("watch", statistics.watch, "write the statistics again and again, one JSON line each"),
        ("top", top.run, "show the whole installation on one screen, until q is pressed"),
    ):
        one = add(commands, name, run, text)
        one.add_argument("--interval", type=_interval, default=1.0, metavar="S", help="0.2 to 60; default: 1")
        one.add_argument("--count", type=_positive, metavar="N", help="end after so many; default: never")
    add(commands, "graphs", graphs.draw_all, "draw all graphs now")
    one = add(commands, "graph", graphs.show, "show one graph here, or write it as a picture")
    one.add_argument("name", metavar="NAME", help="such as latency_timeline; `graphs` names all")
    one.add_argument("--period", choices=tuple(graphs.PERIODS), default="hour", help="default: hour")
    one.add_argument("--output", type=Path, metavar="FILE", help="a new file that ends in .png or .svg")


def _add_tracing(commands: _Commands, add: Callable[..., argparse.ArgumentParser]) -> None:
    one = add(commands, "trace", traces.show, "show where the time of a message went")
    one.add_argument("message", metavar="MESSAGE_ID", help="room_id-epoch-seq, or a trace id")
    one = add(commands, "traces", traces.list_traces, "list the newest traces")
    one.add_argument("--slower-than", type=_milliseconds, default=0.0, metavar="MS", help="only those that took longer")
    one.add_argument("--errors", action="store_true", help="only those in which something failed")
    one.add_argument("--room", default="", metavar="ROOM_ID")
    one.add_argument("--user", default="", metavar="USER_ID")
    one.add_argument("--limit", type=_positive, default=100, metavar="N", help="up to 1000; default: 100")
    one = add(commands, "logs", traces.list_logs, "list the newest log records of all processes")
    one.add_argument("--trace", default="", metavar="TRACE_ID", help="only those of one trace")
    one.add_argument("--level", choices=LEVELS, default="", help="at least this one")
    one.add_argument("--process", default="", metavar="NAME", help="such as edge-1")
    one.add_argument("--limit", type=_positive, default=100, metavar="N", help="up to 1000; default: 100")
    group = _group(commands, "tracing", "what is traced: show, start, stop, set")
    add(group, "show", traces.show_tracing, "show what every edge traces")
    one = add(group, "start", traces.start_tracing, "trace all that happens in a room or that a user does, for a while")
    _add_subject(one)
    one.add_argument("--seconds", type=_milliseconds, default=600.0, metavar="S", help="up to 86400; default: 600")
    _add_subject(add(group, "stop", traces.stop_tracing, "end that"))
    one = add(group, "set", traces.set_sampling, "sample more or less of everything else, until an edge starts anew")
    one.add_argument("--ratio", type=float, metavar="R", help="0 to 1: the part of messages and commands")
    one.add_argument("--rate", type=float, metavar="N", help="0.1 to 1000: traces a second and edge at most")


def _add_subject(made: argparse.ArgumentParser) -> None:
    subject = made.add_mutually_exclusive_group(required=True)
    subject.add_argument("--room", metavar="ROOM", help="name, id, or the beginning of an id")
    subject.add_argument("--user", metavar="USER")


def _add_rooms(commands: _Commands, add: Callable[..., argparse.ArgumentParser]) -> None:
    group = _group(commands, "rooms", "rooms: list, show, members, remove-member, close, open, delete, announce")
    _add_listing(add(group, "list", rooms.list_rooms, "list all rooms, private ones too"))
    for name, run, text in (
        ("show", rooms.show, "show one room"),
        ("members", rooms.list_members, "list the members of a room"),
        ("remove-member", rooms.remove_member, "remove a member from a room at once"),
        ("close", rooms.close, "close a room: nobody sends, nobody new comes in"),
        ("open", rooms.reopen, "open a room that was closed"),
        ("delete", rooms.delete, "delete a room for ever, with its messages and files"),
        ("announce", rooms.announce, "show a text to everyone who is in a room"),
    ):
        one = add(group, name, run, text)
        one.add_argument("room", metavar="ROOM", help="name, id, or the beginning of an id")
        if name == "members":
            one.add_argument("--limit", type=_positive, default=LIMIT, metavar="N", help=f"default: {LIMIT}")
        elif name == "remove-member":
            one.add_argument("user", metavar="USER")
        elif name == "close":
            one.add_argument("--reason", default="", metavar="TEXT", help="is told to those who are in it")
        elif name == "announce":
            one.add_argument("text", metavar="TEXT")


def _add_processes(commands: _Commands, add: Callable[..., argparse.ArgumentParser]) -> None:
    named = "only this one, such as edge-1, or this service, such as edge; default: all"
    one = add(commands, "processes", processes.list_processes, "list the processes, what they use and how they log")
    one.add_argument("process", nargs="?", metavar="PROCESS", help=named)
    one = add(commands, "log-level", processes.set_log_level, "change how much is logged, until the next start")
    one.add_argument("level", choices=LEVELS)
    one.add_argument("process", nargs="?", metavar="PROCESS", help=named)
    one = add(commands, "notice", processes.send_notice, "show a text to everyone who is logged in")
    one.add_argument("text", metavar="TEXT")
    _add_edge(one)
    one = add(commands, "drain", processes.drain, "take an edge out of service, until its next start")
    one.add_argument("edge", metavar="EDGE", help="such as edge-1")
    one.add_argument(
        "--grace", type=_grace, default=5.0, metavar="S", help="how long it may take, up to 60; default: 5"
    )


class _Commands(Protocol):
    """What `add_subparsers` returns, for which argparse has no public name."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser:
        """Adds a command."""
        ...


def _group(commands: _Commands, name: str, text: str) -> _Commands:
    return commands.add_parser(name, help=text).add_subparsers(required=True, metavar="COMMAND")


def _add_common(made: argparse.ArgumentParser, *, is_top: bool) -> None:
    # They may stand before and behind the command; behind it, one that is left out must not undo one before.
    def default(value: object) -> object:
        return value if is_top else argparse.SUPPRESS

    made.add_argument("--home", type=Path, default=default(Path()), metavar="DIR", help="the stack's home; default: .")
    made.add_argument(
        "--identity", default=default("local"), metavar="NAME", help="whose certificate is shown; default: local"
    )
    made.add_argument("--json", action="store_true", default=default(False), help="for programs")
    made.add_argument("--yes", action="store_true", default=default(False), help="do it without asking")


def _add_listing(made: argparse.ArgumentParser) -> None:
    made.add_argument("query", nargs="?", metavar="QUERY", help="part of a name")
    made.add_argument("--limit", type=_positive, default=LIMIT, metavar="N", help=f"default: {LIMIT}")


def _add_edge(made: argparse.ArgumentParser) -> None:
    made.add_argument("--edge", metavar="NAME", help="only this one, such as edge-1; default: all")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:10]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text[:10])


def _grace(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= DRAIN_S_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to {DRAIN_S_MAX:g}")
    return seconds


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not INTERVALS_S[0] <= seconds <= INTERVALS_S[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.2 to 60")
    return seconds


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def _of_class(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if name not in CLASSES or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one of {', '.join(CLASSES)}, = and a number")
    return name, value


def _target(text: str) -> tuple[str, float]:
    name, value = _of_class(text)
    try:
        target_ms = float(value)
    except ValueError:
        target_ms = -1.0
    if not 0 <= target_ms < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: the target is a number of milliseconds")
    return name, target_ms


def _share(text: str) -> tuple[str, int]:
    name, value = _of_class(text)
    return name, _positive(value)
