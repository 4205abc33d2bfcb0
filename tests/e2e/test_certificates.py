"""Every certificate of a running stack is renewed, and then both authorities, under load: nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import urllib.request
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.helpers.people import People
from tests.helpers.stack import ROOT, eventually, parley

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.raw_client import RawClient
    from tests.helpers.stack import Stack

TALKERS = 8
PAUSE_S = 0.1  # half of what a person may send
SERVICES = ("auth-1", "edge-1", "metrics-1", "rooms-1")


class Load:
    """People who talk all the time, and others who come, ask for what a new call needs, and go. Nothing may fail."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._stop = asyncio.Event()
        self.talkers: list[RawClient] = []
        self.said = 0
        self.visits = 0

    async def prepare(self) -> None:
        self.talkers = [await self._people.person() for _ in range(TALKERS)]
        self._room_id = await self._people.room(*self.talkers)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for talker in self.talkers:
                group.create_task(self._talk(talker))
            group.create_task(self._visit())

    def stop(self) -> None:
        self._stop.set()

    async def _talk(self, client: RawClient) -> None:
        while not self._stop.is_set():
            await client.say(self._room_id, f"text {self.said}")
            client.events.clear()
            self.said += 1
            await asyncio.sleep(PAUSE_S)

    async def _visit(self) -> None:
        while not self._stop.is_set():
            async with AsyncExitStack() as exits:
                visitor = await People(self._people.stack, exits).person()
                await visitor.expect("join_room", room_id=self._room_id)
                await visitor.say(self._room_id, "hello")
            self.visits += 1


@contextlib.asynccontextmanager
async def under_load(stack: Stack) -> AsyncIterator[Load]:
    async with AsyncExitStack() as exits:
        load = Load(People(stack, exits))
        await load.prepare()
        running = asyncio.create_task(load.run())
        try:
            yield load
        except BaseException:
            running.cancel()
            await asyncio.wait([running])
            raise
        said, visits = load.said, load.visits
        # It goes on behind the last change, too.
        await asyncio.to_thread(
            eventually, lambda: running.done() or (load.said > said + 50 and load.visits > visits + 2), timeout_s=60
        )
        load.stop()
        await running  # raises what failed


async def certs(stack: Stack, *arguments: str) -> str:
    command = parley("certs", "--home", str(stack.home), *arguments)
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(port: int) -> int:
    """The serial number of the certificate that a new client sees."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    import socket

    with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as wrapped:
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def serial_on_disk(stack: Stack, name: str) -> int:
    return x509.load_pem_x509_certificate((stack.home / "certificates" / f"{name}-cert.pem").read_bytes()).serial_number


def read_again(stack: Stack, event: str = "certificates were read again") -> dict[str, set[str]]:
    """The files that each process says it has read again."""
    found: dict[str, set[str]] = {}
    for line in stack.log_events():
        if line["event"] == event:
            found.setdefault(line["service"], set()).add(line["file"].rpartition("/")[2])
    return found


def have_read(stack: Stack) -> bool:
    again = read_again(stack)
    return all(f"{name.partition('-')[0]}-cert.pem" in again.get(name, ()) for name in SERVICES) and (
        "server-cert.pem" in again.get("edge-1", ())
    )


def ends(stack: Stack, process: str) -> dict[str, float]:
    address = stack.processes()[process]["prometheus"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    prefix = 'parley_certificate_not_after{certificate="'
    pairs = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
    return {name: float(value) for name, value in pairs}


@pytest.mark.timeout(240)
async def test_all_certificates_and_authorities_are_rotated_under_load(own_stack: Stack) -> None:
    stack = own_stack
    assert ends(stack, "edge-1").keys() == {"edge-cert.pem", "grpc-ca-cert.pem", "server-cert.pem"}
    pids = stack.pids()
    async with under_load(stack) as load:
        await certs(stack, "renew", "--all")
        await asyncio.to_thread(eventually, lambda: have_read(stack), why="a process did not read its files again")
        assert shown(stack.port) == serial_on_disk(stack, "server")
        for name in SERVICES:
            port = int(stack.processes()[name]["grpc"].rpartition(":")[2])
            assert shown(port) == serial_on_disk(stack, name.partition("-")[0])

        await certs(stack, "renew", "client-ca", "grpc-ca")
        lines = len(stack.log_events())
        await certs(stack, "renew", "--all")  # waits until everybody trusts the successors

        def all_have_read_the_successors() -> bool:
            later = stack.log_events()[lines:]
            done = {line["service"] for line in later if line["event"] == "certificates were read again"}
            return set(SERVICES) <= done

        await asyncio.to_thread(eventually, all_have_read_the_successors, why="not read again")
        for authority in ("client-ca", "grpc-ca"):
            assert "1 predecessor retired" in await certs(stack, "retire", authority)
        assert load.talkers
    assert load.said > 200
    assert stack.pids() == pids
    assert not [line for line in stack.log_events() if line["level"] in ("warning", "error", "critical")]
    entries = {entry["name"]: entry for entry in json.loads(await certs(stack, "show", "--json"))}
    assert {"client-ca", "grpc-ca", "server", "admin-local"} <= entries.keys()
    assert all(entry["state"] == "good" for entry in entries.values())


@pytest.mark.timeout(120)
async def test_files_that_cannot_be_used_change_nothing_and_are_in_the_log(own_stack: Stack) -> None:
    stack = own_stack
    directory = stack.home / "certificates"
    async with under_load(stack):
        before = {name: shown(int(stack.processes()[name]["grpc"].rpartition(":")[2])) for name in SERVICES}
        client_before = shown(stack.port)
        for service in ("auth", "edge", "rooms", "server"):
            path = directory / f"{service}-cert.pem"
            path.write_bytes(path.read_bytes()[:300])
        (directory / "metrics-key.pem").write_bytes((directory / "rooms-key.pem").read_bytes())

        def complaints() -> set[str]:
            told = "certificates cannot be used: those from before stay in use"
            return {
                line["file"].rpartition("/")[2]
                for line in stack.log_events()
                if line["event"] == told and line["level"] == "warning" and line["reason"]
            }

        expected = {f"{name}-cert.pem" for name in ("auth", "edge", "rooms", "metrics", "server")}
        await asyncio.to_thread(eventually, lambda: complaints() == expected, why="not complained about")
        assert {name: shown(int(stack.processes()[name]["grpc"].rpartition(":")[2])) for name in SERVICES} == before
        assert shown(stack.port) == client_before
        await certs(stack, "make")
        await asyncio.to_thread(eventually, lambda: have_read(stack), why="not read again")
