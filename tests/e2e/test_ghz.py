"""Every configuration in tests/ghz against a real stack, with our runner and with the real ghz: they report alike."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.servers import find_go_program
from tests.helpers.stack import ROOT, Stack, parley, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATIONS = sorted((ROOT / "tests" / "ghz").glob("*.json"))
RUN_S = 90.0
# What calls end with when all is well, besides OK.
EXPECTED = {"auth-accounts": "AlreadyExists", "metrics-stream": "Canceled"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


def read(configuration: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(configuration.read_text())
    return values


def flags(stack: Stack, configuration: Path) -> list[str]:
    """The configuration, with the host and the certificates of this stack in place of a default one's."""
    values = read(configuration)
    name = values["cname"].partition(".")[0]
    certificates = [
        part for key in ("cacert", "cert", "key") for part in (f"--{key}", str(stack.home / values[key]))
    ]  # fmt: skip
    return [stack.processes()[f"{name}-1"]["grpc"], "--config", str(configuration), *certificates]


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(RUN_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def report(*command: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(await run(*command, "--format", "json"))
    return made


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda path: path.stem)
async def test_our_runner(stack: Stack, configuration: Path) -> None:
    made = await report(*parley("ghz"), *flags(stack, configuration))
    values = read(configuration)
    assert made["count"] == values["total"]
    assert set(made["statusCodeDistribution"]) <= {"OK", EXPECTED.get(configuration.stem, "OK")}
    assert made["name"] == values["name"]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda path: path.stem)
async def test_the_real_ghz_reports_alike(stack: Stack, configuration: Path) -> None:
    ghz = find_go_program("ghz")
    theirs = await report(ghz, *flags(stack, configuration))
    ours = await report(*parley("ghz"), *flags(stack, configuration))
    assert set(theirs) == set(ours)
    assert set(theirs["options"]) == set(ours["options"])
    same = set(theirs["options"]) - {"CPUs"}
    assert {key: theirs["options"][key] for key in same} == {key: ours["options"][key] for key in same}
    assert theirs["count"] == ours["count"]
    assert theirs["endReason"] == ours["endReason"] == "normal"
    expected = {"OK", EXPECTED.get(configuration.stem, "OK")}
    for made in (theirs, ours):
        assert set(made["statusCodeDistribution"]) <= expected
        assert_is_plausible(made)
    if (theirs["latencyDistribution"] is None) == (ours["latencyDistribution"] is None):
        for key in ("latencyDistribution", "histogram", "details"):
            assert shape(theirs[key]) == shape(ours[key])


def shape(rows: list[dict[str, Any]] | None) -> tuple[int, set[str]]:
    return (len(rows), set(rows[0])) if rows else (0, set())


def assert_is_plausible(made: dict[str, Any]) -> None:
    """What must hold within one report, whoever made it."""
    count, details = made["count"], made["details"]
    assert sum(made["statusCodeDistribution"].values()) == count == len(details)
    assert sum(made["errorDistribution"].values()) == sum(1 for detail in details if detail["error"])
    assert made["rps"] == pytest.approx(count / (made["total"] / 1e9), rel=0.01)
    assert made["average"] == pytest.approx(sum(detail["latency"] for detail in details) / count, rel=0.01)
    good = sorted(detail["latency"] for detail in details if not detail["error"])
    if not good:
        return
    assert made["fastest"] == pytest.approx(good[0], abs=2)
    assert made["slowest"] == pytest.approx(good[-1], abs=2)
    by_rank = [row["latency"] for row in made["latencyDistribution"]]
    assert by_rank == sorted(by_rank)
    assert good[0] - 2 <= by_rank[0]
    assert by_rank[-1] <= good[-1] + 2
    assert sum(row["count"] for row in made["histogram"]) == len(good)


async def test_rates_of_both_are_the_same(stack: Stack) -> None:
    """A step schedule takes as long with either, because its rate is what is asked and not what is possible."""
    configuration = ROOT / "tests" / "ghz" / "edge-qos.json"
    ghz = find_go_program("ghz")
    theirs, ours = [], []
    for _ in range(4):  # a machine that is busy makes a run longer and never shorter: the shortest ones tell
        theirs.append((await report(ghz, *flags(stack, configuration)))["total"])
        ours.append((await report(*parley("ghz"), *flags(stack, configuration)))["total"])
        if min(ours) == pytest.approx(min(theirs), rel=0.15):
            break
    assert min(ours) == pytest.approx(min(theirs), rel=0.15)


async def test_a_stranger_is_told_that_it_may_not(stack: Stack) -> None:
    """The edge's certificate does not open what is for operators."""
    configuration = ROOT / "tests" / "ghz" / "rooms-list-all-rooms.json"
    edge = [f"--{key}={stack.home}/certificates/edge-{key}.pem" for key in ("cert", "key")]
    made = await report(*parley("ghz"), *flags(stack, configuration), *edge, "-n", "10")
    assert made["statusCodeDistribution"] == {"PermissionDenied": 10}


async def test_reports_for_people(stack: Stack, tmp_path: Path) -> None:
    command = [*parley("ghz"), *flags(stack, ROOT / "tests" / "ghz" / "health.json"), "-n", "50"]
    assert "Latency distribution:" in await run(*command)
    for form in ("csv", "html"):
        await run(*command, "-O", form, "-o", str(tmp_path / form))
    assert len((tmp_path / "csv").read_text().splitlines()) == 51
    assert (tmp_path / "html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--call", "grpc.health.v1.Health/Nothing"], "no method"),
        (["--host", "127.0.0.1:1", "--connect-timeout", "200ms"], "no connection"),
        (["--data", '{"nothing": 1}'], "does not fit"),
        (["--proto", "nowhere.proto"], "nowhere.proto"),
        (["--cert", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
async def test_what_cannot_work_is_said(stack: Stack, arguments: list[str], problem: str) -> None:
    command = [*parley("ghz"), *flags(stack, ROOT / "tests" / "ghz" / "health.json"), *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(RUN_S):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert problem in err.decode()
    assert len(err.decode().splitlines()) <= 2


async def test_a_compiled_descriptor_set_will_do(stack: Stack, tmp_path: Path) -> None:
    compiled = tmp_path / "set"
    source = "protos/parley/rooms/v1/rooms.proto"
    options = ["-Iprotos", "--include_imports", f"--descriptor_set_out={compiled}", source]
    await run(sys.executable, "-m", "grpc_tools.protoc", *options)
    configuration = read(ROOT / "tests" / "ghz" / "rooms-list-rooms.json")
    del configuration["proto"], configuration["import-paths"]
    file = tmp_path / "configuration.json"
    file.write_text(json.dumps({**configuration, "protoset": str(compiled), "total": 20}))
    made = await report(*parley("ghz"), *flags(stack, file))
    assert made["statusCodeDistribution"] == {"OK": 20}
