"""Each gRPC call that operators have is made by `parley admin` on a running stack: by its audit log, none is missing.

Neither the calls nor the commands are listed by hand. The calls are what the processes tell through reflection and let
an operator make; the commands are the leaves of the command line. Each command runs as an operator of its own, and
what it called is read from `logs/audit.log`. The same log then has to tell of every call the five facts: who, what
(method and target), when, from where and how it ended; of those that succeed, of those that are refused and of those
that fail.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import time
from contextlib import AsyncExitStack
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import message_factory

from client.admin.arguments import parser
from services.common.logs import is_secret
from tests.e2e.test_admin import admin, audited
from tests.helpers import rpc_matrix
from tests.helpers.people import People, fresh
from tests.helpers.stack import ROOT, Stack, eventually, running_stack
from tests.helpers.stack import parley as program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

    Line = dict[str, Any]

OPERATOR = "auditor"
CONFIG = (
    "[auth]\nbcrypt_rounds = 4\n[metrics]\nstop_grace_s = 0.1\ngraphs_interval_s = 86_400.0\n"
    "[common]\ntrace_ratio = 1.0\ntrace_rate_max = 1000.0\n"
)
CALL_S = 20.0
TRACED_S = 30.0
GARBAGE = b"\xff\xff\xff\xff"  # of no message: a tag without an end
STRANGER = "of-a-stranger"
PASSWORD = "correct horse battery"

# Every command once, in an order in which each has something to do; what is in braces is filled in.
COMMANDS = """
accounts list {user}
accounts show {user}
accounts sessions {user}
accounts unlock {user}
rooms list {name}
rooms show {name}
rooms members {room}
rooms announce {room} hello
rooms remove-member {room} {guest}
rooms close {room} --yes
rooms open {room}
connections
qos show
qos set --concurrency 32 --target low=900
processes
log-level info
notice hello
stats
watch --interval 0.2 --count 2
top --count 2 --interval 0.2
graphs
graph latency_timeline
traces --room {room}
logs --process edge-1
tracing show
tracing start --user {user} --seconds 60
tracing stop --user {user}
tracing set --ratio 0.5
trace {message}
trace {trace}
rooms delete {room}
disconnect {connection} --edge edge-1
accounts set-password {user} --password-file {file}
accounts revoke {user}
accounts disable {user}
accounts enable {user}
drain edge-2 --grace 1
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(edges=2, config=CONFIG) as running:
        made = program("certs", "--home", str(running.home), "admin", OPERATOR)
        subprocess.run(made, cwd=ROOT, check=True, capture_output=True, timeout=60)
        yield running


def declared() -> dict[str, MethodDescriptor]:
    """Every call of every service in the .proto files, by its path."""
    found: dict[str, MethodDescriptor] = {}
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        module = ".".join(path.relative_to(ROOT / "protos").with_suffix("").parts) + "_pb2"
        for service in import_module(module).DESCRIPTOR.services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}": method for method in service.methods}
    return found


def call(stack: Stack, process: str, caller: str, method: str, data: bytes) -> grpc.StatusCode:
    """Sends one request, whatever the method takes; how that ended. On the wire a call of each kind looks like this."""
    address = stack.processes()[process]["grpc"]
    with rpc_matrix.channel(stack.home, address, caller) as opened:
        try:
            list(opened.stream_stream(method)(iter([data]), timeout=CALL_S))
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def operators(stack: Stack) -> dict[str, list[str]]:
    """The calls that an operator may make, each with the processes that have it.

    Asked with a request that no method takes: who may call is told so, who may not is refused before it is read.
    """
    found: dict[str, list[str]] = {}
    reflected, asked = set(), set()
    for process, one in stack.processes().items():
        for service, methods in rpc_matrix.methods_of(stack.home, one["grpc"]).items():
            for method, _, _ in methods if service.startswith("parley.") else ():
                reflected.add(method)
                asked.add((process, method))
                status = call(stack, process, "admin", method, GARBAGE)
                assert status in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}, method
                if status == grpc.StatusCode.INVALID_ARGUMENT:
                    found.setdefault(method, []).append(process)
    assert reflected == set(declared())
    # Their lines are not to be among those that a test waits for.
    eventually(lambda: asked <= {(line["process"], line["method"]) for line in audited(stack)}, why="not all audited")
    return found


def leaves(one: argparse.ArgumentParser, path: str = "") -> Iterator[str]:
    """Every command of a command line, with the groups that it is in."""
    groups = [action for action in one._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield path.strip()
    for group in groups:
        for name, inner in group.choices.items():
            yield from leaves(inner, f"{path} {name}")


def test_each_command_is_in_this_test() -> None:
    ran = [line.split() for line in COMMANDS.strip().splitlines()]
    missing = [leaf for leaf in leaves(parser()) if leaf.split() not in [words[: len(leaf.split())] for words in ran]]
    assert not missing


async def trace_id(stack: Stack, message_id: str) -> str:
    """Of the trace of a message, once it has arrived."""
    deadline = time.monotonic() + TRACED_S
    while time.monotonic() < deadline:
        _, out, _ = await admin(stack, "--json", "trace", message_id)
        if found := re.search(r'"trace_id": *"([0-9a-f]{32})"', out):
            return found[1]
    raise AssertionError("no trace arrived")


async def test_every_call_is_made_and_every_line_says_who_what_when_whence_and_how(
    stack: Stack, operators: dict[str, list[str]], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("another horse altogether\n")
    user, guest, name = fresh("user"), fresh("guest"), fresh("room")
    began = time.time()
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        ann, ben = await people.person(user), await people.person(guest)
        room = (await ann.expect("create_room", {"name": name}))["room_id"]
        await ben.expect("join_room", room_id=room)
        sent = await ann.say(room, "traced")
        _, out, _ = await admin(stack, "--json", "connections", "--edge", "edge-1")
        message = f"{room}-{sent['epoch']}-{sent['seq']}"
        filled = {
            "user": user, "guest": guest, "name": name, "room": room, "file": str(file),
            "message": message, "trace": await trace_id(stack, message),
            "connection": re.findall(r'"connection_id": *"([^"]+)"', out)[-1],
        }  # fmt: skip
        for command in COMMANDS.strip().splitlines():
            words = command.format(**filled).split()
            status, _, err = await admin(stack, "--identity", OPERATOR, *words, "--yes")
            assert status == 0, (command, err)

    def lines() -> list[Line]:
        return [line for line in audited(stack) if line["who"] == f"admin/{OPERATOR}"]

    def missing() -> set[str]:
        return set(operators) - {line["method"] for line in lines()}

    # A stream's line is written when it has ended, which its caller does not wait for.
    await asyncio.to_thread(eventually, lambda: not missing(), why=f"never called: {missing()}")
    typed = {*filled.values(), *" ".join(COMMANDS.split()).split(), "edge-1", "low", "[redacted]"}
    for line in lines():
        check_facts(line, stack, operators, since=began)
        assert line["outcome"] in {"ok", "cancelled"}, line
        assert (line["outcome"] == "ok") or line["method"].endswith("StreamStatistics"), line
        assert texts(line["target"]) <= typed, line
    for method in operators:
        fields = declared()[method].input_type.fields
        targets = [line["target"] for line in lines() if line["method"] == method]
        assert any(targets) or not fields, f"{method}: no line says what it was about"
    assert "horse" not in (stack.home / "logs" / "audit.log").read_text()


def check_facts(line: Line, stack: Stack, operators: dict[str, list[str]], *, since: float) -> None:
    """A line says all that it has to: who, what, when, from where, and how it ended."""
    assert re.fullmatch(r"(admin/[a-z]+|edge|auth|rooms|metrics)", line["who"]), line
    assert line["process"] in operators[line["method"]], line
    assert set(line["target"]) <= {field.name for field in declared()[line["method"]].input_type.fields}, line
    assert line["ts"].endswith("Z")
    assert since - 1 <= datetime.fromisoformat(line["ts"]).timestamp() <= time.time() + 1, line
    where = re.fullmatch(r"ipv4:127\.0\.0\.1:(\d+)|ipv6:%5B::1%5D:(\d+)", line["from"])
    assert where, line
    assert 0 < int(where[1] or where[2]) < 65_536, line
    assert line["outcome"], line
    assert line["duration_ms"] >= 0, line


def next_line(stack: Stack, before: int, method: str) -> Line:
    """The one line that a call has added, which its caller does not wait for."""
    eventually(lambda: len(audited(stack)) > before, why=f"{method}: not in the audit log")
    [line] = audited(stack)[before:]
    return line


def texts(value: Any) -> set[str]:
    """All texts in a target."""
    if isinstance(value, dict):
        return {text for inner in value.values() for text in texts(inner)}
    if isinstance(value, list):
        return {text for inner in value for text in texts(inner)}
    return {value} if isinstance(value, str) else set()


def strange(method: MethodDescriptor) -> tuple[bytes, dict[str, str]]:
    """A request whose texts are all about a stranger, and what the audit log has to say of it."""
    request = message_factory.GetMessageClass(method.input_type)()
    said: dict[str, str] = {}
    for field in method.input_type.fields:
        if is_text(field) and not (field.containing_oneof and field.containing_oneof.fields[0] is not field):
            setattr(request, field.name, STRANGER)
            is_blanked = field.GetOptions().debug_redact or is_secret(field.name)
            said[field.name] = "[redacted]" if is_blanked else STRANGER
    return request.SerializeToString(), said


def is_text(field: FieldDescriptor) -> bool:
    return field.type == field.TYPE_STRING and not field.is_repeated


@pytest.mark.parametrize("caller", ["edge", "auth", "rooms", "metrics"])
def test_a_refused_call_has_the_five_facts_too(stack: Stack, operators: dict[str, list[str]], caller: str) -> None:
    began, before = time.time(), len(audited(stack))
    for method, processes in operators.items():
        request, said = strange(declared()[method])
        for data, target in ((request, said), (GARBAGE, {})):
            assert call(stack, processes[0], caller, method, data) == grpc.StatusCode.PERMISSION_DENIED, method
            line = next_line(stack, before, method)
            before += 1
            check_facts(line, stack, operators, since=began)
            found = (line["who"], line["method"], line["target"], line["outcome"], line["process"])
            assert found == (caller, method, target, "forbidden", processes[0])


def test_a_failed_call_has_the_five_facts_too(stack: Stack, operators: dict[str, list[str]]) -> None:
    began, before = time.time(), len(audited(stack))
    for method, processes in operators.items():
        assert call(stack, processes[0], "admin", method, GARBAGE) == grpc.StatusCode.INVALID_ARGUMENT, method
        line = next_line(stack, before, method)
        before += 1
        check_facts(line, stack, operators, since=began)
        found = (line["who"], line["method"], line["outcome"], line["process"])
        assert found == ("admin/local", method, "bad_request", processes[0])


async def test_a_command_that_fails_has_the_five_facts_too(stack: Stack, operators: dict[str, list[str]]) -> None:
    began, before = time.time(), len(audited(stack))
    for words in (("accounts", "show"), ("rooms", "show"), ("disconnect",), ("tracing", "stop", "--room")):
        status, _, err = await admin(stack, "--identity", OPERATOR, *words, STRANGER, "--yes")
        assert status == 1, (words, err)

    def lines() -> list[Line]:
        return [line for line in audited(stack)[before:] if line["who"] == f"admin/{OPERATOR}"]

    # Their callers do not wait for these lines.
    await asyncio.to_thread(
        eventually, lambda: len({line["method"] for line in lines()}) >= 3, why="not in the audit log"
    )
    failed = lines()
    assert {line["outcome"] for line in failed} <= {"bad_request", "no_such_room", "not_found"}
    assert len({line["method"] for line in failed}) == 3
    for line in failed:
        check_facts(line, stack, operators, since=began)
        assert (line["who"], texts(line["target"])) == (f"admin/{OPERATOR}", {STRANGER})
