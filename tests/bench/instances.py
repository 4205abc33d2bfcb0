"""What a second rooms instance is worth: `python -m tests.bench.instances [--instances 1,2] [--seconds 5] [--runs 3]`.

Rooms processes on a PostgreSQL and a Redis of their own, without edges: this program is one edge, with a stream to each
instance, rooms spread over them, and a window of messages in flight in each room. What is counted is messages that were
acknowledged, which is after a synced commit (the server runs with fsync on). Beside the rate stands the CPU that each
part took for a message, because on a machine with few cores all parts share them: where every process has a core, what
takes most for a message is what bounds the rate.

`--share 0.4` gives each rooms process that part of a core and no more (control groups, as root): so two of them can be
measured as on a machine that has a core for each, only with slower cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parley.rooms.v1 import feed_pb2, feed_pb2_grpc

from tests.helpers.postgres import PostgresServer
from tests.helpers.redis_server import RedisServer
from tests.helpers.rooms_process import rooms_process
from tests.helpers.served_rooms import Edge, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from parley.rooms.v1 import rooms_pb2

ROOMS = 16
BATCH = 64
BATCHES_IN_FLIGHT = 8  # of each instance: enough that it is never without work
TEXT = "x" * 100
USER = "bench"
WARM_UP_S = 1.0
PERIOD_US = 10_000
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Instance:
    """A rooms process, and this program as its edge."""

    pid: int
    edge: Edge
    acknowledged: int = 0
    rooms: list[rooms_pb2.Room] = field(default_factory=list)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) * TICK_S
    return own + sum(cpu_s(int(child)) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@contextlib.contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """The process gets this part of a core; with 0 it is not limited. Ended before this is left."""
    if not share:
        yield
        return
    is_old = Path("/sys/fs/cgroup/cpu").is_dir()  # version 1
    group = Path("/sys/fs/cgroup/cpu" if is_old else "/sys/fs/cgroup") / f"parley-bench-{pid}"
    group.mkdir()
    quota_us = int(share * PERIOD_US)
    settings = {"cpu.cfs_period_us": PERIOD_US, "cpu.cfs_quota_us": quota_us} if is_old else {}
    for name, value in (settings or {"cpu.max": f"{quota_us} {PERIOD_US}"}).items():
        (group / name).write_text(str(value))
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        group.rmdir()


@contextlib.asynccontextmanager
async def running(count: int, folder: Path, database: str, redis: str, share: float) -> AsyncIterator[list[Instance]]:
    """So many instances, and rooms spread over them."""
    instances: list[Instance] = []
    async with contextlib.AsyncExitStack() as exits:
        for number in range(1, count + 1):
            (home := folder / f"rooms-{number}").mkdir()
            settings = {"NAME": home.name, "DATABASE_URL": database, "REDIS_URL": redis}
            environment = {f"PARLEY_ROOMS_{name}": value for name, value in settings.items()}
            process, edge = await exits.enter_async_context(rooms_process(home, environment=environment))
            exits.enter_context(limited(process.pid, share))
            instances.append(Instance(process.pid, edge))
        for number in range(ROOMS):
            instance = instances[number % count]
            instance.rooms.append(await instance.edge.create(USER, f"room {number}"))
        yield instances


class Driver:
    """Keeps batches in flight on the stream of one instance, whose rooms it follows as well."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._number = 0

    async def run(self) -> None:
        edge = self._instance.edge
        stub: feed_pb2_grpc.RoomFeedServiceAsyncStub = feed_pb2_grpc.RoomFeedServiceStub(edge.channel)
        call: Any = stub.Attach()
        rooms = self._instance.rooms
        follows = [feed_pb2.Follow(room_id=room.room_id, epoch=room.epoch, after_seq=room.last_seq) for room in rooms]
        hello = feed_pb2.EdgeHello(edge_name=edge.name, boot_id=edge.boot_id)
        await call.write(feed_pb2.AttachRequest(hello=hello, follows=follows))
        for _ in range(BATCHES_IN_FLIGHT):
            await call.write(self._batch())
        waiting = 0
        try:
            async for response in call:
                found = len(response.stored.numbers)
                assert not response.results, "the load is too high for the instance"
                self._instance.acknowledged += found
                waiting += found
                while waiting >= BATCH:
                    waiting -= BATCH
                    await call.write(self._batch())
        finally:
            call.cancel()

    def _batch(self) -> feed_pb2.AttachRequest:
        first, self._number = self._number + 1, self._number + BATCH
        rooms = self._instance.rooms
        numbers = range(first, first + BATCH)
        publishes = feed_pb2.Publishes(
            numbers=numbers,
            room_ids=[rooms[number % len(rooms)].room_id for number in numbers],
            user_ids=[user_id(USER)] * BATCH,
            usernames=[USER] * BATCH,
            texts=[TEXT] * BATCH,
            keys=[f"e{number}" for number in numbers],
        )
        return feed_pb2.AttachRequest(publishes=publishes)


async def measure(
    count: int, seconds: float, share: float, postgres: PostgresServer, redis: RedisServer
) -> dict[str, float]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory(prefix="parley-instances-") as folder:
        redis.flush()
        async with running(count, Path(folder), postgres.make_database(), redis.url, share) as instances:
            tasks = [asyncio.create_task(Driver(instance).run(), name="driver") for instance in instances]
            await asyncio.sleep(WARM_UP_S)
            pids = {"postgres": postgres.pid, "redis": redis.pid, "driver": os.getpid()}
            pids |= {f"rooms-{number}": one.pid for number, one in enumerate(instances, 1)}
            own = time.process_time()
            before = {name: cpu_s(pid) for name, pid in pids.items() if name != "driver"}
            stored, began = sum(one.acknowledged for one in instances), time.perf_counter()
            await asyncio.sleep(seconds)
            stored = sum(one.acknowledged for one in instances) - stored
            took = time.perf_counter() - began
            used = {name: cpu_s(pids[name]) - before[name] for name in before} | {"driver": time.process_time() - own}
            for task in tasks:
                task.cancel()
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(end, Exception):
                    raise end
    figures = {"instances": float(count), "messages/s": stored / took}
    return figures | {f"{name} µs": 1e6 * spent / stored for name, spent in used.items()}


async def main() -> None:
    """Measures in turns, so that what else the machine does hits all alike, and prints medians."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.instances", description=__doc__)
    parser.add_argument("--instances", default="1,2", help="how many, in turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, each time")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.0, help="of a core, for each rooms process; 0: no limit")
    arguments = parser.parse_args()
    counts = [int(each) for each in arguments.instances.split(",")]
    postgres, redis = PostgresServer(settings=("fsync=on",)), RedisServer()
    try:
        postgres.start()
        redis.start()
        found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
        for _ in range(arguments.runs):
            for count in counts:
                found[count].append(await measure(count, arguments.seconds, arguments.share, postgres, redis))
                print({name: round(value, 1) for name, value in found[count][-1].items()}, flush=True)
    finally:
        redis.close()
        postgres.close()
    print("medians")
    for runs in found.values():
        print({name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]})


if __name__ == "__main__":
    asyncio.run(main())
