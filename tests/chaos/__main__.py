"""`parley check`: talks over a stack, breaks things where it may, and judges what was seen."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # services that are killed are meant to be unreachable

from tests.chaos import report, target
from tests.chaos.checker import check
from tests.chaos.events import LogError, decode
from tests.chaos.nemesis import choice
from tests.chaos.restorer import RestoreError
from tests.chaos.run import Plan, UnreachableError, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BROKEN = 1
UNUSABLE = 2
BEGUN = "parley check: everybody is in, and talks"


def main(argv: Sequence[str] | None = None) -> int:
    """0: the promise was kept; 1: it was broken; 2: nothing could be checked."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.history is not None:
            return _judge(arguments.history)
        return _run(arguments)
    except (OSError, LogError, ValueError, RestoreError, UnreachableError) as error:
        print(f"parley check: {error}", file=sys.stderr)
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley check",
        description="Proves the delivery promise (docs/reliability.md) of a running stack: talks over it with many "
        "clients, and checks everything that they see. Without a target it starts a stack of its own, and breaks it.",
    )
    where = parser.add_argument_group("target")
    where.add_argument("--home", type=Path, metavar="DIR", help="home of a stack on this machine")
    where.add_argument("--host", metavar="H", help="a server, with --port and --ca")
    where.add_argument("--port", metavar="P[,P…]", help="its edges' ports")
    where.add_argument("--ca", metavar="FILE", help="its certificate authority")
    where.add_argument(
        "--layout",
        choices=target.LAYOUTS,
        default="sqlite",
        help="where there is no target: the stack to start (sqlite)",
    )
    parser.add_argument("--seconds", type=float, default=30.0, metavar="N", help="how long people talk (30)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of everything that is drawn (1)")
    parser.add_argument("--people", type=int, default=8, metavar="N", help="people who come and go (8)")
    parser.add_argument("--rooms", type=int, default=4, metavar="N", help="rooms that they make (4)")
    parser.add_argument(
        "--faults",
        type=_faults,
        metavar="KINDS",
        help=f"none, all, or some of {','.join(choice.KINDS)}; default: none where there is a target, else all",
    )
    parser.add_argument("--restore", action="store_true", help="back up and restore half way; only a stack of our own")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the log of events there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there, for programs")
    parser.add_argument("--history", type=Path, metavar="FILE", help="only check a log that was kept")
    return parser


def _faults(text: str) -> frozenset[str]:
    try:
        return choice.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _judge(path: Path) -> int:
    with path.open("rb") as lines:
        verdict = check(decode(lines))
    print(report.of_verdict(verdict))
    return 0 if verdict.is_kept else BROKEN


def _run(arguments: argparse.Namespace) -> int:
    has_target = arguments.home is not None or arguments.host is not None
    faults = arguments.faults
    if faults is None:
        faults = frozenset() if has_target else frozenset(choice.KINDS)
    plan = Plan(
        seconds=arguments.seconds,
        seed=arguments.seed,
        people=arguments.people,
        rooms=arguments.rooms,
        faults=faults,
        restore=arguments.restore,
    )
    if plan.restore and has_target:
        raise ValueError("--restore is for a stack of our own: it would take your stack back to its backup")
    with contextlib.ExitStack() as exits:
        log = arguments.log
        if log is None:
            folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="parley-check-"))
            log = Path(folder) / "events.jsonl"
        outcome = asyncio.run(run(exits.enter_context(_target(arguments)), plan, log, _begun))
    print(report.of_outcome(outcome))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_json(outcome)) + "\n")
    return 0 if outcome.is_good else BROKEN


def _begun() -> None:
    print(BEGUN, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _target(arguments: argparse.Namespace) -> Iterator[target.Target]:
    if arguments.home is not None:
        yield target.of_home(arguments.home.resolve(), arguments.host or "localhost")
    elif arguments.host is not None:
        if arguments.ca is None:
            raise ValueError("--host needs --ca, the certificate authority of that server")
        ports = [int(port) for port in (arguments.port or "8888").split(",")]
        yield target.of_addresses(arguments.host, ports, arguments.ca)
    else:
        with target.own(arguments.layout) as own:
            yield own


if __name__ == "__main__":
    sys.exit(main())
