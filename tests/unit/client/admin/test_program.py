"""The operators' command against grpcio-testing's channel: what it asks, and what it makes of the answers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf.message import Message
from parley.auth.v1 import auth_pb2
from parley.edge.v1 import edge_pb2
from parley.metrics.v1 import metrics_pb2
from parley.process.v1 import process_pb2
from parley.rooms.v1 import rooms_pb2

from client.admin.arguments import parser
from client.admin.failures import AdminError
from client.admin.report import Context
from client.stack import Process

SERVICES = {
    name: file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (auth_pb2, "AuthAdminService"),
        (rooms_pb2, "RoomsAdminService"),
        (edge_pb2, "EdgeAdminService"),
        (metrics_pb2, "MetricsService"),
        (process_pb2, "ProcessAdminService"),
    )
}
CREATED = 1_800_000_000_000
OK = grpc.StatusCode.OK
ACCOUNT = auth_pb2.Account(user_id="u1", username="ada\x1b[31m", created_at_ms=CREATED, online=True)


class Operator:
    """Runs commands on a thread; the test plays the services."""

    def __init__(self) -> None:
        names = {"auth": ["auth-1"], "rooms": ["rooms-1"], "metrics": ["metrics-1"], "edge": ["edge-1", "edge-2"]}
        self._processes = {service: tuple(Process(name, "") for name in some) for service, some in names.items()}
        self._channels = {
            name: grpc_testing.channel(list(SERVICES.values()), grpc_testing.strict_real_time())
            for some in names.values()
            for name in some
        }
        self._pool = ThreadPoolExecutor(1)
        self.questions: list[str] = []
        self.answer: str | None = None
        self.secrets: list[str] = []

    def processes(self, service: str) -> tuple[Process, ...]:
        return self._processes[service]

    def open(self, process: Process) -> grpc.Channel:
        return self._channels[process.name]  # type: ignore[no-any-return]

    def start(self, *argv: str) -> Future[str]:
        arguments = parser().parse_args(argv)
        out = io.StringIO()

        def ask(question: str) -> str | None:
            self.questions.append(question)
            return self.answer

        def ask_secret(question: str) -> str | None:
            return self.secrets.pop(0) if self.secrets else None

        context = Context(self, as_json=arguments.json, is_sure=arguments.yes, out=out, ask=ask, ask_secret=ask_secret)

        def run() -> str:
            arguments.run(context, arguments)
            return out.getvalue()

        return self._pool.submit(run)

    def serve(
        self,
        service: str,
        method: str,
        response: Message | None = None,
        *,
        process: str = "",
        status: grpc.StatusCode = OK,
        details: str = "",
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        """Answers the next call of a method; returns its request."""
        descriptor = SERVICES[service].methods_by_name[method]
        name = process or {"Auth": "auth-1", "Room": "rooms-1", "Edge": "edge-1", "Metr": "metrics-1"}[service[:4]]
        _, request, rpc = self._channels[name].take_unary_unary(descriptor)
        rpc.terminate(response, metadata, status, details)
        return request

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.close()


def test_accounts_are_listed_in_pages_and_sanitised(operator: Operator) -> None:
    running = operator.start("accounts", "list", "a")
    first = auth_pb2.ListAccountsResponse(accounts=[ACCOUNT], next_page_token="t")
    request = operator.serve("AuthAdminService", "ListAccounts", first)
    assert (request.query, request.page_token) == ("a", "")
    request = operator.serve(
        "AuthAdminService",
        "ListAccounts",
        auth_pb2.ListAccountsResponse(accounts=[auth_pb2.Account(username="bob", user_id="u2", disabled=True)]),
    )
    assert request.page_token == "t"
    lines = running.result(10).splitlines()
    assert lines[0].split() == ["NAME", "ID", "CREATED", "ONLINE", "DISABLED"]
    assert lines[1].split()[:2] == ["ada", "u1"]
    assert lines[1].split()[-1] == "yes"
    assert lines[2].split() == ["bob", "u2", "yes"]


def test_programs_get_json_with_the_names_of_the_protocol(operator: Operator) -> None:
    running = operator.start("--json", "accounts", "list")
    operator.serve("AuthAdminService", "ListAccounts", auth_pb2.ListAccountsResponse(accounts=[ACCOUNT]))
    written = running.result(10)
    assert "\x1b" not in written
    assert json.loads(written) == [
        {"user_id": "u1", "username": "ada\x1b[31m", "created_at_ms": CREATED, "disabled": False, "online": True}
    ]


def test_a_limit_is_kept(operator: Operator) -> None:
    running = operator.start("accounts", "list", "--limit", "1")
    request = operator.serve(
        "AuthAdminService", "ListAccounts", auth_pb2.ListAccountsResponse(accounts=[ACCOUNT], next_page_token="more")
    )
    assert request.page_size == 1
    assert len(running.result(10).splitlines()) == 2


def test_what_hurts_is_asked_about(operator: Operator) -> None:
    operator.answer = "yes"
    running = operator.start("accounts", "disable", "ada")
    request = operator.serve(
        "AuthAdminService",
        "SetAccountDisabled",
        auth_pb2.SetAccountDisabledResponse(account=auth_pb2.Account(username="ada", disabled=True)),
    )
    assert request == auth_pb2.SetAccountDisabledRequest(username="ada", disabled=True)
    assert running.result(10) == "The account ada is disabled.\n"
    assert "Disable the account ada" in operator.questions[0]


def test_a_password_is_typed_twice_and_never_shown(operator: Operator) -> None:
    operator.secrets = ["correct horse", "correct horse"]
    running = operator.start("accounts", "set-password", "ada", "--yes")
    request = operator.serve("AuthAdminService", "SetPassword", auth_pb2.SetPasswordResponse(revoked_count=1))
    assert request == auth_pb2.SetPasswordRequest(username="ada", password="correct horse")
    assert running.result(10) == "ada has another password. Sessions ended: 1.\n"


def test_a_password_comes_from_a_file(operator: Operator, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"correct horse\r\nrest")
    running = operator.start("accounts", "set-password", "ada", "--yes", "--password-file", str(file))
    request = operator.serve("AuthAdminService", "SetPassword", auth_pb2.SetPasswordResponse())
    assert request.password == "correct horse"
    running.result(10)
    for unreadable in (tmp_path / "none", tmp_path):
        with pytest.raises(AdminError, match="cannot be read"):
            operator.start("accounts", "set-password", "a", "--yes", "--password-file", str(unreadable)).result(10)


@pytest.mark.parametrize(("secrets", "said"), [(["one", "other"], "two different"), ([], "--password-file")])
def test_without_one_password_nothing_is_set(operator: Operator, secrets: list[str], said: str) -> None:
    operator.secrets = secrets
    with pytest.raises(AdminError, match=said):
        operator.start("accounts", "set-password", "ada", "--yes").result(10)


def test_an_account_is_shown(operator: Operator) -> None:
    response = auth_pb2.GetAccountResponse(account=ACCOUNT, locked=True, locked_for_s=2.5)
    running = operator.start("accounts", "show", "ada")
    operator.serve("AuthAdminService", "GetAccount", response)
    shown = dict(line.split(maxsplit=1) for line in running.result(10).splitlines())
    assert (shown["username"], shown["locked_for_s"]) == ("ada", "2.5")
    assert shown["created"].startswith("2027-01-1")
    running = operator.start("accounts", "show", "ada", "--json")
    operator.serve("AuthAdminService", "GetAccount", response)
    assert json.loads(running.result(10))["created_at_ms"] == CREATED


def test_sessions_are_listed(operator: Operator) -> None:
    running = operator.start("accounts", "sessions", "ada")
    session = auth_pb2.Session(session_id="s1", username="ada", edge_name="edge-1", opened_at_ms=CREATED)
    request = operator.serve(
        "AuthAdminService", "ListSessions", auth_pb2.ListSessionsResponse(sessions=[session], next_page_token="t")
    )
    assert (request.username, request.page_token) == ("ada", "")
    request = operator.serve("AuthAdminService", "ListSessions", auth_pb2.ListSessionsResponse())
    assert request.page_token == "t"
    lines = running.result(10).splitlines()
    assert lines[1].split()[:3] == ["s1", "ada", "edge-1"]


def test_unlocking(operator: Operator) -> None:
    running = operator.start("accounts", "unlock", "ada")
    request = operator.serve("AuthAdminService", "UnlockAccount", auth_pb2.UnlockAccountResponse(was_locked=True))
    assert request.username == "ada"
    assert running.result(10) == "ada: The next login waits for nothing.\n"


@pytest.mark.parametrize(
    "command",
    [
        ("accounts", "disable", "a"),
        ("accounts", "revoke", "a"),
        ("accounts", "set-password", "a"),
        ("rooms", "remove-member", "r", "a"),
        ("disconnect", "7"),
        ("drain", "edge-1"),
    ],
)
@pytest.mark.parametrize(("answer", "said"), [("no", "Nothing was done"), ("", "Nothing was done"), (None, "--yes")])
def test_without_a_yes_nothing_is_done(
    operator: Operator, command: tuple[str, ...], answer: str | None, said: str
) -> None:
    operator.answer = answer
    with pytest.raises(AdminError, match=said):
        operator.start(*command).result(10)
    assert len(operator.questions) == 1


def test_yes_asks_nothing(operator: Operator) -> None:
    running = operator.start("accounts", "revoke", "ada", "--yes", "--json")
    request = operator.serve("AuthAdminService", "RevokeSessions", auth_pb2.RevokeSessionsResponse(revoked_count=2))
    assert request.username == "ada"
    assert json.loads(running.result(10)) == {"revoked_count": 2}
    assert operator.questions == []


def test_rooms(operator: Operator) -> None:
    running = operator.start("rooms", "list", "--json")
    room = rooms_pb2.RoomSummary(room_id="r1", name="tea", user_count=1, member_count=2, private=True)
    operator.serve("RoomsAdminService", "ListAllRooms", rooms_pb2.ListAllRoomsResponse(rooms=[room]))
    [row] = json.loads(running.result(10))
    assert (row["name"], row["private"], row["member_count"]) == ("tea", True, 2)
    assert "joined" not in row
    running = operator.start("rooms", "remove-member", "tea", "bob", "--yes")
    request = operator.serve("RoomsAdminService", "RemoveMember", rooms_pb2.RemoveMemberResponse())
    assert request == rooms_pb2.RemoveMemberRequest(room="tea", username="bob")
    assert running.result(10) == "bob is no longer in the room tea.\n"


@pytest.mark.parametrize("command", [("connections",), ("connections", "list")])
def test_connections_of_every_edge(operator: Operator, command: tuple[str, ...]) -> None:
    running = operator.start(*command)
    for edge in ("edge-1", "edge-2"):
        connection = edge_pb2.Connection(connection_id="7", username=f"on {edge}", protocol=2, connected_at_ms=CREATED)
        operator.serve(
            "EdgeAdminService",
            "ListConnections",
            edge_pb2.ListConnectionsResponse(connections=[connection]),
            process=edge,
        )
    lines = running.result(10).splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["edge-1", "7", "on", "edge-1"],
        ["edge-2", "7", "on", "edge-2"],
    ]


NOT_HERE: dict[str, Any] = {
    "status": grpc.StatusCode.INVALID_ARGUMENT,
    "details": "no such connection",
    "metadata": (("parley-code", "bad_request"),),
}


def test_a_connection_is_closed_on_whichever_edge_it_is(operator: Operator) -> None:
    running = operator.start("disconnect", "7", "--yes")
    operator.serve("EdgeAdminService", "Disconnect", process="edge-1", **NOT_HERE)
    operator.serve("EdgeAdminService", "Disconnect", edge_pb2.DisconnectResponse(), process="edge-2")
    assert running.result(10) == "edge-2 closed the connection 7.\n"


def test_a_connection_that_is_nowhere(operator: Operator) -> None:
    running = operator.start("disconnect", "7", "--yes")
    for edge in ("edge-1", "edge-2"):
        operator.serve("EdgeAdminService", "Disconnect", process=edge, **NOT_HERE)
    with pytest.raises(AdminError, match="no such connection"):
        running.result(10)


QOS = edge_pb2.GetQosResponse(
    qos=edge_pb2.Qos(concurrency=64, running=3, classes=[edge_pb2.QosClass(name="high", target_ms=50, share=1024)])
)


def test_qos_is_shown(operator: Operator) -> None:
    running = operator.start("qos", "show", "--edge", "edge-2")
    operator.serve("EdgeAdminService", "GetQos", QOS, process="edge-2")
    lines = running.result(10).splitlines()
    assert lines[1].split()[:4] == ["edge-2", "high", "50", "1024"]
    assert lines[2] == "edge-2: 3 running of at most 64."


def test_qos_is_changed_on_every_edge_and_only_where_it_was_named(operator: Operator) -> None:
    running = operator.start(
        "qos",
        "set",
        "--concurrency",
        "8",
        "--target",
        "low=1500.5",
        "--share",
        "low=9",
        "--target",
        "high=40",
        "--json",
    )
    for edge in ("edge-1", "edge-2"):
        request = operator.serve("EdgeAdminService", "UpdateQos", edge_pb2.UpdateQosResponse(qos=QOS.qos), process=edge)
        assert request.concurrency == 8
        low, high = request.classes
        assert (low.name, low.target_ms, low.share) == ("low", 1500.5, 9)
        assert high.target_ms == 40
        assert not high.HasField("share")
    assert set(json.loads(running.result(10))) == {"edge-1", "edge-2"}


def test_changing_nothing_is_refused(operator: Operator) -> None:
    with pytest.raises(AdminError, match="Nothing to change"):
        operator.start("qos", "set").result(10)


def test_an_edge_that_is_not_there(operator: Operator) -> None:
    with pytest.raises(AdminError, match="running: edge-1, edge-2"):
        operator.start("qos", "show", "--edge", "edge-9").result(10)


def test_all_processes_are_listed(operator: Operator) -> None:
    running = operator.start("processes")
    for name in ("edge-1", "edge-2", "auth-1", "rooms-1", "metrics-1"):
        process = process_pb2.Process(name=name, pid=7, cpu_s=1.5, resident_bytes=80_500_000, log_level="info")
        response = process_pb2.GetProcessResponse(process=process)
        operator.serve("ProcessAdminService", "GetProcess", response, process=name)
    lines = running.result(10).splitlines()
    assert len(lines) == 6
    assert lines[1].split() == ["edge-1", "7", "1.5", "80.5", "info"]


@pytest.mark.parametrize(("named", "asked"), [("edge", ("edge-1", "edge-2")), ("auth-1", ("auth-1",))])
def test_the_log_level_of_a_service_or_a_process_is_changed(
    operator: Operator, named: str, asked: tuple[str, ...]
) -> None:
    running = operator.start("log-level", "debug", named, "--json")
    for name in asked:
        response = process_pb2.SetLogLevelResponse(process=process_pb2.Process(name=name, log_level="debug"))
        request = operator.serve("ProcessAdminService", "SetLogLevel", response, process=name)
        assert request.log_level == "debug"
    assert [row["name"] for row in json.loads(running.result(10))] == list(asked)


def test_a_process_that_is_not_there(operator: Operator) -> None:
    with pytest.raises(AdminError, match="running: edge-1, edge-2, auth-1"):
        operator.start("processes", "edge-3").result(10)


def test_a_notice_goes_to_every_edge(operator: Operator) -> None:
    running = operator.start("notice", "down at ten")
    for edge, count in (("edge-1", 2), ("edge-2", 3)):
        response = edge_pb2.SendNoticeResponse(recipient_count=count)
        assert operator.serve("EdgeAdminService", "SendNotice", response, process=edge).text == "down at ten"
    assert running.result(10) == "Shown to 5.\n"


def test_one_edge_is_drained(operator: Operator) -> None:
    operator.answer = "yes"
    running = operator.start("drain", "edge-2", "--grace", "9")
    response = edge_pb2.DrainResponse(told_count=4, left_count=1)
    assert operator.serve("EdgeAdminService", "Drain", response, process="edge-2").grace_s == 9
    assert "Told goodbye: 4; still there: 1." in running.result(10)


def test_statistics_and_graphs(operator: Operator) -> None:
    response = metrics_pb2.GetStatisticsResponse(timestamp_ms=CREATED, values={"b": 0.1 + 0.2, "a": 5})
    running = operator.start("stats")
    operator.serve("MetricsService", "GetStatistics", response)
    lines = running.result(10).splitlines()
    assert [line.split()[0] for line in lines] == ["time", "a", "b"]
    assert lines[2].split() == ["b", "0.3"]
    running = operator.start("stats", "--json")
    operator.serve("MetricsService", "GetStatistics", response)
    assert json.loads(running.result(10))["values"]["a"] == 5
    running = operator.start("graphs")
    operator.serve("MetricsService", "DrawGraphs", metrics_pb2.DrawGraphsResponse(paths=["/a.png", "/b.png"]))
    assert running.result(10) == "/a.png\n/b.png\n"


@pytest.mark.parametrize(
    ("status", "metadata", "code"),
    [
        (grpc.StatusCode.NOT_FOUND, (("parley-code", "no_such_room"),), "no_such_room"),
        (grpc.StatusCode.PERMISSION_DENIED, (), "forbidden"),
        (grpc.StatusCode.UNAVAILABLE, (), "unreachable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, (), "unreachable"),
        (grpc.StatusCode.UNKNOWN, (), "internal"),
    ],
)
def test_refusals_and_failures(
    operator: Operator, status: grpc.StatusCode, metadata: tuple[tuple[str, str], ...], code: str
) -> None:
    running = operator.start("rooms", "remove-member", "r", "a", "--yes")
    operator.serve("RoomsAdminService", "RemoveMember", status=status, details="why", metadata=metadata)
    with pytest.raises(AdminError, match="why") as failed:
        running.result(10)
    assert failed.value.code == code


def test_options_may_stand_before_or_behind_the_command() -> None:
    for argv in (["--json", "--home", "/x", "stats"], ["stats", "--json", "--home", "/x"]):
        arguments = parser().parse_args(argv)
        assert arguments.json
        assert str(arguments.home) == "/x"
    assert not parser().parse_args(["stats"]).json
    assert parser().parse_args(["stats"]).identity == "local"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["accounts"],
        ["accounts", "disable"],
        ["qos", "set", "--target", "fast=1"],
        ["qos", "set", "--target", "low=-1"],
        ["qos", "set", "--target", "low=nan"],
        ["qos", "set", "--share", "low=0"],
        ["qos", "set", "--share", "low"],
        ["connections", "close"],
        ["drain"],
        ["drain", "edge-1", "--grace", "0"],
        ["drain", "edge-1", "--grace", "nan"],
        ["log-level", "loud"],
        ["notice"],
        ["accounts", "list", "--limit", "0"],
    ],
)
def test_command_lines_that_cannot_be_right(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(argv)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_sampling_is_changed_at_every_edge(operator: Operator) -> None:
    running = operator.start("--json", "tracing", "set", "--ratio", "0")
    changed = edge_pb2.UpdateTracingResponse(tracing=edge_pb2.Tracing(ratio=0.0, rate_max=5.0))
    for name in ("edge-1", "edge-2"):
        request = operator.serve("EdgeAdminService", "UpdateTracing", changed, process=name)
        assert request.HasField("ratio")
        assert not request.HasField("rate_max")
    shown = json.loads(running.result(10))
    assert {name: (one["ratio"], one["rate_max"]) for name, one in shown.items()} == {
        "edge-1": (0.0, 5.0),
        "edge-2": (0.0, 5.0),
    }


def test_sampling_is_not_changed_to_nothing(operator: Operator) -> None:
    with pytest.raises(AdminError, match="--ratio") as raised:
        operator.start("tracing", "set").result(10)
    assert raised.value.code == "bad_request"
