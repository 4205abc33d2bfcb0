"""What tracing costs: `python -m tests.bench.tracing_cost`.

One stack, one crowd; while messages flow, the sampling is changed back and forth through the edge's admin call, every
window of a few hundred milliseconds being compared with its neighbours. Machines drift by more from one start of a
stack to the next than tracing costs, but hardly between two neighbouring half seconds. A figure is CPU time of all
processes of the stack for each message.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import uvloop
from parley.edge.v1 import edge_pb2, edge_pb2_grpc

from tests.bench.certificates import make_certificates
from tests.bench.server import DRIVER_CORE, Server, cpu_seconds, descendants, make_home
from tests.bench.servers.parley import Parley
from tests.bench.workloads import WARM_UP_S, Figures, Room, close_all, drained, make_rooms

WORKLOADS = {"fanout-1": (1, 200, 1), "fanout-64": (1, 200, 64), "rooms": (50, 4, 16)}
"""By name: rooms, members of each, messages in flight in each; those of `parley bench`."""

SETTLE_S = 0.15
"""After a change, until what was begun before it is over."""


@dataclass(frozen=True)
class Sampling:
    ratio: float
    rate_max: float

    def __str__(self) -> str:
        return f"{self.ratio:.1%} <= {self.rate_max:g}/s" if self.ratio else "none"


NONE = Sampling(0.0, 1.0)
DEFAULT = Sampling(0.01, 5.0)
"""`trace_ratio` and `trace_rate_max` where nothing else is said (services/common/config.py)."""


def pids_by_name(server: Parley) -> dict[str, list[int]]:
    """The processes of each service, and of `parley up` itself."""
    stack = json.loads((server.home / "run" / "stack.json").read_text())
    return {one["name"]: descendants(one["pid"]) for one in stack["processes"]}


def admin(server: Parley) -> grpc.aio.Channel:
    """A channel to the edge, as the operator of this home."""
    stack = json.loads((server.home / "run" / "stack.json").read_text())
    [address] = [one["grpc"] for one in stack["processes"] if one["name"] == "edge-1"]
    folder = server.home / "certificates"
    credentials = grpc.ssl_channel_credentials(
        Path(stack["grpc_ca"]).read_bytes(),
        (folder / "admin-local-key.pem").read_bytes(),
        (folder / "admin-local-cert.pem").read_bytes(),
    )
    return grpc.aio.secure_channel(f"localhost:{address.rpartition(':')[2]}", credentials)


async def windows(
    server: Parley, rooms: list[Room], samplings: list[Sampling], *, seconds: float, rounds: int
) -> list[list[dict[str, float]]]:
    """For each round, in the order of `samplings`: CPU microseconds for each message, by process and in all."""
    pids = pids_by_name(server)
    rows = []
    async with admin(server) as channel:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
        for number in range(rounds):
            row: list[dict[str, float]] = [{} for _ in samplings]
            # There and back, so that a drift falls on all alike.
            order = range(len(samplings)) if number % 2 == 0 else range(len(samplings) - 1, -1, -1)
            for index in order:
                sampling = samplings[index]
                answer = await stub.UpdateTracing(
                    edge_pb2.UpdateTracingRequest(ratio=sampling.ratio, rate_max=sampling.rate_max), timeout=10
                )
                await asyncio.sleep(SETTLE_S)
                cpu = {name: sum(map(cpu_seconds, ones)) for name, ones in pids.items()}
                sent = sum(room.sent for room in rooms)
                await asyncio.sleep(seconds)
                sent = sum(room.sent for room in rooms) - sent
                if not sent:
                    log = (server.home / "logs" / "server.log").read_text()
                    raise RuntimeError(f"nothing flows in round {number}: {log[-2000:]}")
                row[index] = {
                    name: (sum(map(cpu_seconds, ones)) - cpu[name]) / sent * 1e6 for name, ones in pids.items()
                }
                row[index]["all"] = sum(row[index].values())
                row[index]["messages_per_s"] = sent / seconds
                row[index]["traces"] = answer.tracing.started
            rows.append(row)
    return rows


def table(samplings: list[Sampling], rows: list[list[dict[str, float]]]) -> str:
    """A line for each sampling: medians, and the median and spread of the cost beside the first, round by round."""
    names = [name for name in rows[0][0] if name != "traces"]
    lines = [f"{'sampling':18}" + "".join(f"{name:>16}" for name in names) + "    cost"]
    for index, sampling in enumerate(samplings):
        medians = "".join(f"{statistics.median(row[index][name] for row in rows):16.2f}" for name in names)
        costs = sorted(row[index]["all"] / row[0]["all"] - 1 for row in rows)
        low, high = costs[len(costs) // 4], costs[len(costs) * 3 // 4]
        middle = statistics.median(costs)
        error = 1.25 * statistics.pstdev(costs) / len(costs) ** 0.5
        lines.append(f"{sampling!s:18}{medians}    {middle:+.1%} ± {error:.1%} (quartiles {low:+.1%} {high:+.1%})")
    return "\n".join(lines)


async def run(workload: str, samplings: list[Sampling], *, seconds: float, rounds: int) -> list[list[dict[str, float]]]:
    """Starts a stack, lets messages flow, and measures."""
    home = make_home(Parley)
    server = Parley(home / "home", make_certificates(home))
    count, size, window = WORKLOADS[workload]
    try:
        await server.start()
        rooms = await make_rooms(server, count, size)
        for room in rooms:
            room.window = window
            room.fill()
        await asyncio.sleep(WARM_UP_S)
        rows = await windows(server, rooms, samplings, seconds=seconds, rounds=rounds)
        lost = await drained(rooms)
        if lost:
            raise RuntimeError(f"{lost} deliveries were lost")
        return rows
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


async def tracing(server: Server, seconds: float) -> Figures:
    """The workload of `parley bench`: what sampling by default costs beside none, where messages flow as in `rooms`."""
    assert isinstance(server, Parley)
    count, size, window = WORKLOADS["rooms"]
    rooms = await make_rooms(server, count, size)
    for room in rooms:
        room.window = window
        room.fill()
    await asyncio.sleep(WARM_UP_S)
    rows = await windows(server, rooms, [NONE, DEFAULT], seconds=1.0, rounds=max(4, int(5 * seconds)))
    lost = await drained(rooms)
    for room in rooms:
        close_all([*room.members, room.sender])
    costs = sorted(after["all"] / before["all"] - 1 for before, after in rows)
    return {
        "cost_percent": statistics.median(costs) * 100,
        "error_percent": 1.25 * statistics.pstdev(costs) / len(costs) ** 0.5 * 100,
        "none_us_a_message": statistics.median(row[0]["all"] for row in rows),
        "default_us_a_message": statistics.median(row[1]["all"] for row in rows),
        "lost": lost,
    }


def main(argv: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tracing_cost", description=__doc__)
    parser.add_argument("--workload", choices=[*WORKLOADS], action="append")
    parser.add_argument("--sampling", action="append", metavar="RATIO,RATE", help="beside none at all")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args(argv)
    asked = [tuple(map(float, one.split(","))) for one in arguments.sampling or []]
    samplings = [NONE, *([Sampling(ratio, rate) for ratio, rate in asked] or [DEFAULT])]
    if (os.cpu_count() or 1) > DRIVER_CORE:
        os.sched_setaffinity(0, {DRIVER_CORE})
    for workload in arguments.workload or WORKLOADS:
        rows = uvloop.run(run(workload, samplings, seconds=arguments.seconds, rounds=arguments.rounds))
        print(f"{workload}: CPU microseconds a message\n{table(samplings, rows)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
