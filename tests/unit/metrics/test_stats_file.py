from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.stats_file import OLD_FILES_KEPT, StatsFile

AT = datetime(2026, 11, 23, 18, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "performance_stats.json"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_json_with_a_time_in_utc(path: Path) -> None:
    StatsFile(path).append(AT, {"errors": 0, "bandwidth_mbps": 1.5})
    StatsFile(path).append(AT, {"errors": 1})
    assert path.read_bytes().endswith(b"}\n")
    first, second = lines(path)
    assert first == {"timestamp": "2026-11-23T18:00:00.250+00:00", "stats": {"errors": 0, "bandwidth_mbps": 1.5}}
    assert datetime.fromisoformat(first["timestamp"]) == AT
    assert second["stats"] == {"errors": 1}


def test_what_is_no_number_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        StatsFile(path).append(AT, {"x": float("nan")})
    assert not path.exists()


def test_a_line_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = os.write
    monkeypatch.setattr("services.metrics.stats_file.os.write", lambda fd, data: writes.append(data) or write(fd, data))
    StatsFile(path).append(AT, {"errors": 0})
    assert len(writes) == 1
    assert path.read_bytes() == writes[0]


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StatsFile(path)
    file.append(AT, {"errors": 0})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("services.metrics.stats_file.os.write", lambda fd, data: write(fd, data[:10]))
        with pytest.raises(OSError, match="fitted"):
            file.append(AT, {"errors": 1})
    file.append(AT, {"errors": 2})
    assert [line["stats"]["errors"] for line in lines(path)] == [0, 2]


def test_a_full_file_is_put_aside_and_old_ones_go(path: Path) -> None:
    file = StatsFile(path, file_bytes_max=150)
    for n in range(20):
        file.append(AT, {"n": n})
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == [path.name, *(f"{path.name}.{n}" for n in range(1, OLD_FILES_KEPT + 1))]
    assert all(p.stat().st_size <= 150 for p in path.parent.iterdir())
    kept = [line["stats"]["n"] for p in [*(path.with_name(n) for n in reversed(names[1:])), path] for line in lines(p)]
    assert kept == list(range(kept[0], 20))


def test_a_torn_line_is_removed(path: Path) -> None:
    file = StatsFile(path)
    assert file.repair() == 0
    file.append(AT, {"n": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-20])
    assert file.repair() == len(whole) - 20
    assert path.read_bytes() == whole
    assert file.repair() == 0


def test_a_line_that_lacks_only_its_end_is_kept(path: Path) -> None:
    file = StatsFile(path)
    file.append(AT, {"n": 1})
    file.append(AT, {"n": 2})
    path.write_bytes(path.read_bytes()[:-1])
    assert file.repair() == 0
    file.append(AT, {"n": 3})
    assert [line["stats"]["n"] for line in lines(path)] == [1, 2, 3]


@pytest.mark.parametrize("torn", [b"\0" * 4096, b"{", b'{"timestamp": "2026', b"x" * 200_000, b"12", b"\xff\xfe"])
@pytest.mark.parametrize("before", [0, 1])
def test_whatever_a_crash_left_goes(path: Path, torn: bytes, before: int) -> None:
    file = StatsFile(path)
    path.parent.mkdir()
    path.touch()
    for n in range(before):
        file.append(AT, {"n": n})
    path.write_bytes(path.read_bytes() + torn)
    file.repair()
    file.append(AT, {"n": 9})
    assert [line["stats"]["n"] for line in lines(path)] == [*range(before), 9]


@given(cut=st.integers(0, 400))
def test_wherever_the_crash_cut_every_line_parses_after_repair(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("stats") / "performance_stats.json"
    file = StatsFile(path)
    for n in range(4):
        file.append(AT, {"n": n})
    path.write_bytes(path.read_bytes()[:cut])
    file.repair()
    file.append(AT, {"n": 9})
    numbers = [line["stats"]["n"] for line in lines(path)]
    assert numbers == [*range(len(numbers) - 1), 9]
