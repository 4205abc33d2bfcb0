"""Tries what must not be possible, against a running stack, and prints a report: `python tests/security_test.py`.

Without a target it starts a stack of its own, on free ports, in a home that is deleted afterwards. The exit status is 0
only when every check passed. A check that cannot run there (sslscan is not installed, the server is elsewhere) is shown
as skipped, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it can be called by its path

from tests.helpers.stack import running_stack  # noqa: E402
from tests.security import (  # noqa: E402
    accounts,
    bounds,
    clients,
    files,
    inside,
    rights,
    scanner,
    sessions,
    stolen_edge,
    transport,
)
from tests.security.attempt import Attempt, Check, NotApplicableError, SecurityError, Target  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECTIONS: dict[str, dict[str, Check]] = {
    "transport": transport.CHECKS,
    "accounts": accounts.CHECKS,
    "sessions": sessions.CHECKS,
    "rights": rights.CHECKS,
    "bounds": bounds.CHECKS,
    "files": files.CHECKS,
    "clients": clients.CHECKS,
    "inside": inside.CHECKS,
    "stolen edge": stolen_edge.CHECKS,
    "scanner": scanner.CHECKS,
}
CHECK_S = 90.0  # a check that takes longer has failed
LONG_S = {"scanner": scanner.SCAN_S + 10}  # but for these sections

# The real limits are on; only the hash is cheap, as there are a hundred of them.
OWN_CONFIG = "[auth]\nbcrypt_rounds = 6\n[metrics]\nstop_grace_s = 0.1\n"


async def judge(check: Check, target: Target, limit_s: float) -> tuple[str, str]:
    """The verdict on one check (passed, failed, skipped) and what was seen."""
    attempt = Attempt(target)
    try:
        async with asyncio.timeout(limit_s), attempt.exits:
            return "passed", await check(attempt)
    except NotApplicableError as reason:
        return "skipped", str(reason)
    except SecurityError as fault:
        return "failed", str(fault)
    except Exception as error:  # noqa: BLE001 - a check that breaks has not passed
        return "failed", f"{type(error).__name__}: {error}"


async def run(target: Target, only: Sequence[str], skip: Sequence[str] = ()) -> Counter[str]:
    """All checks, one after the other; how many came out how."""
    verdicts: Counter[str] = Counter()
    for section, checks in SECTIONS.items():
        if (only and section not in only) or section in skip:
            continue
        print(f"\n{section}")
        for name, check in checks.items():
            verdict, seen = await judge(check, target, LONG_S.get(section, CHECK_S))
            verdicts[verdict] += 1
            print(f"  {verdict.upper():7} {name}{': ' if seen else ''}{seen}", flush=True)
    return verdicts


@contextlib.contextmanager
def target_of(arguments: argparse.Namespace) -> Iterator[Target]:
    """The stack that was named, or one of our own."""
    if arguments.home is not None:
        yield _target_at(arguments.home)
    elif arguments.port is not None or arguments.host is not None:
        if arguments.ca is None:
            raise SystemExit("security_test: --host and --port need --ca, the certificate authority of that server")
        yield Target(arguments.host or "localhost", arguments.port or 8888, str(arguments.ca))
    else:
        with running_stack(config=OWN_CONFIG) as stack:
            yield _target_at(stack.home)


def _target_at(home: Path) -> Target:
    info = json.loads((home / "run" / "stack.json").read_text())
    port = next(process["client_port"] for process in info["processes"] if "client_port" in process)
    return Target("localhost", port, info["client_ca"], home)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when no check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, metavar="DIR", help="home of the stack to try")
    parser.add_argument("--host", metavar="H", help="server to try")
    parser.add_argument("--port", type=int, metavar="P", help="its port (8888)")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="its certificate authority")
    parser.add_argument("--only", action="append", default=[], choices=list(SECTIONS), help="this section")
    parser.add_argument("--skip", action="append", default=[], choices=list(SECTIONS), help="all but this section")
    arguments = parser.parse_args(argv)
    with target_of(arguments) as target:
        verdicts = asyncio.run(run(target, arguments.only, arguments.skip))
    print(f"\n{verdicts['passed']} passed, {verdicts['failed']} failed, {verdicts['skipped']} skipped")
    return 1 if verdicts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
