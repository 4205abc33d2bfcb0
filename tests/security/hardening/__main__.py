"""Measures what a stack withstands and prints each number beside its bound: `python -m tests.security.hardening`.

It starts a stack of its own, with its limits as they are delivered, for each workload, and exits with 1 where a bound
is broken. It needs the machine to itself: what it measures is what is left for the others.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from typing import TYPE_CHECKING

from tests.helpers.stack import running_stack
from tests.security.hardening import rpc, slow, storm
from tests.security.hardening.world import CONFIG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.helpers.stack import Stack
    from tests.security.hardening.world import Finding

WORKLOADS: dict[str, Callable[[Stack], Awaitable[list[Finding]]]] = {
    "logins": storm.logins,
    "held-logins": storm.held_logins,
    "attempts": storm.attempts,
    "writers": slow.writers,
    "readers": slow.readers,
    "grpc": rpc.abuse,
}
OPEN_FILES = 65_536
WORKLOAD_S = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 where every bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], choices=list(WORKLOADS), help="this workload")
    arguments = parser.parse_args(argv)
    _allow_open_files()
    is_good = True
    for name, work in WORKLOADS.items():
        if arguments.only and name not in arguments.only:
            continue
        with running_stack(config=CONFIG) as stack:
            print(f"{name}: {(work.__doc__ or '').splitlines()[0]}", flush=True)
            for finding in asyncio.run(asyncio.wait_for(work(stack), WORKLOAD_S)):
                print(finding, flush=True)
                is_good &= finding.is_good
    return 0 if is_good else 1


def _allow_open_files() -> None:
    """As many as an installed service has, where we may; otherwise as many as there are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, max(OPEN_FILES, hard)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))


if __name__ == "__main__":
    sys.exit(main())
