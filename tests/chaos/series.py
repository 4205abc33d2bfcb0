"""`make chaos`: many seeded runs, one line of JSON for each, and the tables of docs/reliability.md made from them."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.target import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_S_MAX = 600.0  # beyond the time that people talk: starting, healing, auditing


async def one(arguments: argparse.Namespace, seed: int, folder: Path, gate: asyncio.Semaphore) -> dict[str, Any]:
    """One run in a process of its own; its counts. The log of a run that is not good is kept."""
    summary, log = folder / f"{arguments.layout}-{seed}.json", folder / f"{arguments.layout}-{seed}.jsonl"
    summary.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "tests.chaos", "--layout", arguments.layout, "--seconds", str(arguments.seconds),
        "--seed", str(seed), "--faults", arguments.faults, "--json", str(summary), "--log", str(log),
    ]  # fmt: skip
    async with gate:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(arguments.seconds + RUN_S_MAX):
                output, _ = await process.communicate()
        except TimeoutError:
            process.terminate()  # and its stack with it
            output, _ = await process.communicate()
    counts: dict[str, Any] = json.loads(summary.read_text()) if summary.exists() else {"seed": seed, "good": False}
    counts |= {"layout": arguments.layout, "commit": commit()}
    if counts["good"]:
        log.unlink()
    else:
        (folder / f"{arguments.layout}-{seed}.txt").write_bytes(output)
        print(f"seed {seed}: {log}\n{output.decode()}", flush=True)
    if arguments.results is not None:
        with arguments.results.open("a") as results:
            results.write(json.dumps(counts) + "\n")
    print(row(counts), flush=True)
    return counts


def commit() -> str:
    """What was run: a short name of the commit, with + where the files differ from it; empty where nobody knows."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return ""
    return found.stdout.strip()


HEAD = "| seed | sends | acknowledged | unknown | deliveries | rooms resumed | files | faults | violations |"


def row(counts: dict[str, Any]) -> str:
    """A line of the table in docs/reliability.md."""
    faults = counts.get("faults", {})
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    names = ("sends", "acknowledged", "unknown", "deliveries", "resumes", "files")
    cells = [counts.get(name, "-") for name in names]
    broken = ", ".join(counts.get("violations", {})) or ("0" if counts["good"] else "not checked")
    return f"| {counts['seed']} | {' | '.join(map(str, cells))} | {struck} | {broken} |"


def table(runs: list[dict[str, Any]]) -> Iterable[str]:
    """All runs, what they come to, and how long it took until things went on."""
    yield HEAD
    yield "|" + "---|" * (HEAD.count("|") - 1)
    yield from map(row, runs)
    sums: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for run in runs:
        sums.update({name: run[name] for name in ("sends", "acknowledged", "deliveries", "files") if name in run})
        faults.update(run.get("faults", {}))
    commits = Counter(run.get("commit", "") for run in runs)
    yield ""
    yield f"{len(runs)} runs, {sum(run['good'] for run in runs)} of them good: " + ", ".join(
        f"{count:,} {name}" for name, count in sums.items()
    )
    yield f"faults: {', '.join(f'{kind} {count}' for kind, count in sorted(faults.items()))}"
    yield f"kinds of fault in a run: at least {min(len(run.get('faults', {})) for run in runs)}"
    yield f"commits: {', '.join(f'{name} ({count})' for name, count in commits.items())}"
    for name, what in (("acknowledged_again_s", "rooms gone, acknowledged again"), ("back_s", "edge gone, back")):
        for kind in ("kill", "restart"):
            waits = sorted(wait for run in runs for wait in run.get(name, {}).get(kind, []))
            if waits:
                p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))]
                yield (
                    f"{what} ({kind}, {len(waits)} waits): median {statistics.median(waits):.2f} s, p99 {p99:.2f} s, "
                    f"longest {waits[-1]:.2f} s"
                )


def read(path: Path) -> list[dict[str, Any]]:
    """The runs of a file of results; none where there is no such file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def series(arguments: argparse.Namespace, folder: Path) -> int:
    """All runs that are not in the results yet; how many of them were not good."""
    gate = asyncio.Semaphore(arguments.parallel)
    done = {run["seed"] for run in read(arguments.results)} if arguments.results is not None else set()
    seeds = [seed for seed in range(arguments.seed, arguments.seed + arguments.runs) if seed not in done]
    print(HEAD, flush=True)
    runs = await asyncio.gather(*(one(arguments, seed, folder, gate) for seed in seeds))
    return sum(not counts["good"] for counts in runs)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the promise was kept in all runs."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="how many (10)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long each (60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first run's; the others count on (1)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="side by side (1)")
    parser.add_argument("--layout", choices=LAYOUTS, default=next(iter(LAYOUTS)), help="what to run (sqlite)")
    parser.add_argument("--faults", default="all", metavar="KINDS", help="as of parley check (all)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where logs of bad runs stay (a new temporary folder)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="append a line of JSON for each run; seeds that are there are done"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="run nothing: print these results as tables")
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        print("\n".join(table(sorted(read(arguments.table), key=lambda run: int(run["seed"])))))
        return 0
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="parley-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    bad = asyncio.run(series(arguments, folder))
    print(f"{arguments.runs} runs, {bad} of them not good" + (f"; their logs are in {folder}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
