"""`python -m tests.bench`: Parley and its peers, the same workloads, one table."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
from pathlib import Path

import uvloop

from tests.bench import profiling
from tests.bench.catalogue import WORKLOADS
from tests.bench.certificates import make_certificates
from tests.bench.server import DRIVER_CORE, Server, make_home
from tests.bench.servers import SERVERS
from tests.bench.workloads import Figures

Results = dict[str, dict[str, list[Figures]]]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="parley bench", description=__doc__)
    names = ", ".join([*SERVERS, *WORKLOADS])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"a server or a workload: {names}")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each timed workload")
    parser.add_argument("--runs", type=int, default=1, help="runs of each workload; the table shows medians")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all runs as JSON")
    parser.add_argument("--profile", action="store_true", help="show where the time goes (perf), in a run more")
    arguments = parser.parse_args(argv)
    if arguments.profile and not profiling.is_available():
        parser.error("--profile needs perf")
    unknown = [name for name in arguments.only if name not in SERVERS and name not in WORKLOADS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {names}")
    return arguments


def obstacle(kind: type[Server], workload: str) -> str | None:
    """Why a server cannot run a workload on this machine, or None."""
    needed = WORKLOADS[workload].connections
    if kind.name != "parley" and not WORKLOADS[workload].peers:
        return "is not asked"
    if not kind.is_installed():
        return "is not installed"
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < needed + 200:
        return f"needs {needed} connections, more than `ulimit -n` allows"
    if kind.connections_max < needed:
        return f"takes {kind.connections_max} connections at most here"
    return None


async def measure(kind: type[Server], workload: str, seconds: float, *, is_profiled: bool = False) -> Figures:
    """One run of one workload against a freshly started server; a profile of it is printed."""
    home = make_home(kind)
    server = kind(home / "home", make_certificates(home))
    server.profile = {} if is_profiled else None
    try:
        await server.start()
        figures = await WORKLOADS[workload].run(server, seconds)
        figures |= await server.own_figures()
        if server.profile:
            print(f"{workload}: where {kind.name} spends its time\n{profiling.table(server.profile)}", flush=True)
        return figures
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def median(runs: list[Figures], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def show(results: Results) -> str:
    """The table: for each workload a line a server, with the ratio of Parley to it."""
    lines = []
    for name, by_server in results.items():
        workload = WORKLOADS[name]
        lines.append(f"\n{name}: {workload.title}")
        ours = by_server.get("parley")
        for server, runs in by_server.items():
            figure = median(runs, workload.headline)
            ratio = ""
            if ours and server != "parley" and figure:
                ratio = f"parley/{server} {median(ours, workload.headline) / figure:.2f}"
            others = "  ".join(f"{key} {median(runs, key):,.4g}" for key in runs[0] if key != workload.headline)
            lines.append(f"  {server:10} {figure:>14,.4g}  {ratio:24} {others}   [keeps: {SERVERS[server].keeps}]")
    return "\n".join(lines)


async def run(arguments: argparse.Namespace) -> Results:
    servers = [SERVERS[name] for name in SERVERS if name in arguments.only] or list(SERVERS.values())
    workloads = [name for name in WORKLOADS if name in arguments.only] or list(WORKLOADS)
    results: Results = {}
    for workload in workloads:
        able = []
        for kind in servers:
            why = obstacle(kind, workload)
            if why is None:
                able.append(kind)
            else:
                print(f"{workload}: {kind.name} left out: {why}", file=sys.stderr)
        if arguments.profile:
            for kind in able:
                await measure(kind, workload, arguments.seconds, is_profiled=True)
        # Runs of the servers alternate, because machines drift.
        for number in range(arguments.runs):
            for kind in able:
                try:
                    figures = await measure(kind, workload, arguments.seconds)
                except (RuntimeError, ConnectionError, TimeoutError) as error:
                    print(f"{workload} {kind.name} run {number + 1} failed: {error!r}", file=sys.stderr)
                    continue
                results.setdefault(workload, {}).setdefault(kind.name, []).append(figures)
                headline = WORKLOADS[workload].headline
                print(f"{workload} {kind.name} run {number + 1}: {headline} {figures[headline]:,.4g}", file=sys.stderr)
    return results


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status: 0, or 1 where a message was lost or nothing was measured."""
    arguments = parse_arguments(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    if (os.cpu_count() or 1) > DRIVER_CORE:
        os.sched_setaffinity(0, {DRIVER_CORE})
    results = uvloop.run(run(arguments))
    print(show(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    lost = sum(run.get("lost", 0) for by in results.values() for run in by.get("parley", []))
    if lost:
        print(f"parley lost {lost:.0f} deliveries", file=sys.stderr)
    return 1 if lost or not results else 0


if __name__ == "__main__":
    sys.exit(main())
