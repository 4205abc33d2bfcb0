"""`make chaos`: many seeded runs, several side by side, and a table of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent.parent


async def one(seed: int, seconds: float, folder: Path, gate: asyncio.Semaphore) -> dict[str, Any]:
    """One run in a process of its own; its counts. The log of a run that is not good is kept."""
    summary, log = folder / f"{seed}.json", folder / f"{seed}.jsonl"
    command = [
        sys.executable, "-m", "tests.chaos", "--seconds", str(seconds), "--seed", str(seed), "--json", str(summary),
        "--log", str(log),
    ]  # fmt: skip
    async with gate:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
    counts: dict[str, Any] = json.loads(summary.read_text()) if summary.exists() else {"seed": seed, "good": False}
    if counts["good"]:
        log.unlink()
    else:
        print(f"seed {seed}: {log}\n{output.decode()}", flush=True)
    print(row(counts), flush=True)
    return counts


def row(counts: dict[str, Any]) -> str:
    """A line of the table in docs/reliability.md."""
    faults = counts.get("faults", {})
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    cells = [counts.get(name, "-") for name in ("sends", "acknowledged", "unknown", "deliveries", "resumes")]
    broken = ", ".join(counts.get("violations", {})) or ("0" if counts["good"] else "not checked")
    return f"| {counts['seed']} | {' | '.join(map(str, cells))} | {struck} | {broken} |"


async def series(arguments: argparse.Namespace, folder: Path) -> int:
    """All runs; how many of them were not good."""
    gate = asyncio.Semaphore(arguments.parallel)
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    print("| seed | sends | acknowledged | unknown | deliveries | rooms resumed | faults | violations |", flush=True)
    print("|---|---|---|---|---|---|---|---|", flush=True)
    runs = await asyncio.gather(*(one(seed, arguments.seconds, folder, gate) for seed in seeds))
    return sum(not counts["good"] for counts in runs)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the promise was kept in all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="how many (10)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long each (60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first run's; the others count on (1)")
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="side by side (2)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where logs of bad runs stay (a new temporary folder)")
    arguments = parser.parse_args(argv)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="parley-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    bad = asyncio.run(series(arguments, folder))
    print(f"{arguments.runs} runs, {bad} of them not good" + (f"; their logs are in {folder}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
