from __future__ import annotations

from parley.edge.v1 import edge_pb2
from parley.process.v1 import process_pb2

from client.admin.top import Snapshot, frame

EDGE = process_pb2.Process(name="edge-1", pid=7, cpu_s=1.0, resident_bytes=50_000_000, log_level="info")
QOS = edge_pb2.QosClass(name="high", share=1024, waiting=3, oldest_waiting_ms=12.3, wait_p99_ms=4.5, refused=2)


def snapshot(*, at_ms: int = 1_000, cpu_s: float = 1.0, problems: tuple[str, ...] = ()) -> Snapshot:
    process = process_pb2.Process()
    process.CopyFrom(EDGE)
    process.cpu_s = cpu_s
    values = {"concurrent_users": 12, "messages_per_second": 1234.5, "p99_latency_ms": 6.25}
    return Snapshot(at_ms, values, [process], [("edge-1", QOS)], problems)


def text(now: Snapshot, before: Snapshot | None = None, *, width: int = 120, height: int = 50) -> str:
    return "\n".join(frame(now, before, width=width, height=height))


def test_everything_is_on_one_screen() -> None:
    shown = text(snapshot())
    for part in ("people 12", "messages/s 1,234.5", "p99 6.25", "edge-1", "50", "3 of 1024", "12.3", "4.50"):
        assert part in shown


def test_what_is_not_known_is_a_dash_and_no_zero() -> None:
    assert "rooms -" in text(snapshot())


def test_cpu_is_what_was_used_since_the_frame_before() -> None:
    row = next(
        line
        for line in frame(snapshot(at_ms=3_000, cpu_s=2.0), snapshot(), width=120, height=50)
        if line.startswith("edge-1  ") and " 7 " in line
    )
    assert row.split()[2] == "50"


def test_a_process_that_was_restarted_has_no_share_yet() -> None:
    other = snapshot()
    other.processes[0].pid = 8
    assert " -  " in text(snapshot(at_ms=3_000), other)


def test_it_fits_the_screen_whatever_that_is() -> None:
    lines = frame(snapshot(problems=("x" * 500,)), None, width=40, height=6)
    assert len(lines) == 6
    assert max(map(len, lines)) <= 40


def test_a_terminal_obeys_nothing() -> None:
    assert "\x1b" not in text(snapshot(problems=("rooms-1 is \x1b[31mdown",)))
    assert "down" in text(snapshot(problems=("rooms-1 is \x1b[31mdown",)))
