"""Calls of each kind against a small gRPC server of the test's own, over real connections."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from tests.ghz import calls, settings
from tests.ghz.payloads import Payloads
from tests.ghz.settings import SettingsError
from tests.ghz.templates import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import MethodDescriptor

LONG = "20s"


def service() -> dict[str, MethodDescriptor]:
    """A service Echo with a method of each kind: Unary, Down, Up, Both. Messages have one string, `text`."""
    file = descriptor_pb2.FileDescriptorProto(name="echo.proto", package="test.v1", syntax="proto3")
    message = file.message_type.add(name="Text")
    message.field.add(name="text", number=1, type=9, label=1)
    declared = file.service.add(name="Echo")
    for name, up, down in (("Unary", 0, 0), ("Down", 0, 1), ("Up", 1, 0), ("Both", 1, 1)):
        declared.method.add(
            name=name,
            input_type=".test.v1.Text",
            output_type=".test.v1.Text",
            client_streaming=bool(up),
            server_streaming=bool(down),
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return dict(pool.FindServiceByName("test.v1.Echo").methods_by_name)


METHODS = service()


class Server:
    """Answers with what it got; `got` has it. A text of "fail" is refused, and "forever" streams without an end."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Down": grpc.unary_stream_rpc_method_handler(self._down),
            "Up": grpc.stream_unary_rpc_method_handler(self._up),
            "Both": grpc.stream_stream_rpc_method_handler(self._both),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.Echo", handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _take(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.got.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if b"fail" in request:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return request

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self._take(request, context)

    def _down(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self._take(request, context)
        while b"forever" in request and context.is_active():
            yield request
            time.sleep(0.01)

    def _up(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return [self._take(request, context) for request in requests][-1]

    def _both(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        return (self._take(request, context) for request in requests)

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def call(server: Server, method: str, **values: Any) -> calls.Outcome:
    values = {"timeout": LONG, **values}
    asked = settings.from_values(
        {"call": f"test.v1.Echo/{method}", "host": f"127.0.0.1:{server.port}", "insecure": True, **values}
    )
    with calls.open_channel(asked) as channel:
        caller = calls.Caller(asked, Payloads(asked, METHODS[method]), [channel])
        return caller(Request(number=1, worker="g0c0"), 0)


def texts(server: Server) -> list[str]:
    kind = METHODS["Unary"].input_type._concrete_class
    return [kind.FromString(got).text for got in server.got]


@pytest.mark.parametrize("method", ["Unary", "Down", "Up", "Both"])
def test_each_kind_of_call_ends_well(server: Server, method: str) -> None:
    outcome = call(server, method, data={"text": "hello {{.RequestNumber}}"})
    assert (outcome.status, outcome.error) == ("OK", "")
    assert outcome.latency_ns > 0
    assert texts(server) == ["hello 1"]


def test_an_array_is_used_in_turn(server: Server) -> None:
    call(server, "Unary", data=[{"text": "zero"}, {"text": "one"}])
    assert texts(server) == ["one"]


@pytest.mark.parametrize("method", ["Up", "Both"])
def test_a_stream_sends_the_array_until_there_are_enough(server: Server, method: str) -> None:
    call(server, method, data=[{"text": "a"}, {"text": "b"}], **{"stream-call-count": 5, "stream-interval": "1ms"})
    assert texts(server) == ["a", "b", "a", "b", "a"]


def test_messages_of_a_stream_may_differ(server: Server) -> None:
    values = {"stream-call-count": 2, "stream-dynamic-messages": True}
    call(server, "Up", data={"text": "{{.UUID}}"}, **values)
    first, second = texts(server)
    assert first != second


@pytest.mark.parametrize("method", ["Up", "Both"])
def test_a_stream_of_messages_ends_by_the_clock(server: Server, method: str) -> None:
    values = {"stream-call-count": 1_000_000, "stream-interval": "5ms", "stream-call-duration": "50ms"}
    assert call(server, method, data={"text": "a"}, **values).status == "OK"
    assert 1 <= len(server.got) <= 11


@pytest.mark.parametrize("limit", [{"stream-call-duration": "50ms"}, {"stream-call-count": 3}])
def test_a_stream_of_answers_can_be_left(server: Server, limit: dict[str, Any]) -> None:
    assert call(server, "Down", data={"text": "forever"}, **limit).status == "Canceled"


def test_an_error_has_the_names_of_go(server: Server) -> None:
    outcome = call(server, "Unary", data={"text": "fail"})
    assert (outcome.status, outcome.error) == ("NotFound", "rpc error: code = NotFound desc = no such thing")


def test_a_call_that_takes_too_long_is_ended(server: Server) -> None:
    assert call(server, "Down", data={"text": "forever"}, timeout="50ms").status == "DeadlineExceeded"


def test_metadata_is_filled_in_and_decoded(server: Server) -> None:
    call(server, "Unary", data={"text": "a"}, metadata={"x-worker": "{{.WorkerID}}", "x-raw-bin": "AAEC"})
    assert server.metadata[0]["x-worker"] == "g0c0"
    assert server.metadata[0]["x-raw-bin"] == b"\x00\x01\x02"


def test_a_serialized_request_is_sent_as_it_is(server: Server, tmp_path: Any) -> None:
    file = tmp_path / "request"
    file.write_bytes(b"\x0a\x03abc")
    call(server, "Unary", **{"binary-file": str(file)})
    assert server.got == [b"\x0a\x03abc"]


@pytest.mark.parametrize("data", [{"text": 5}, {"nothing": "like this"}])
def test_data_that_does_not_fit_is_refused(server: Server, data: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"does not fit test\.v1\.Text"):
        call(server, "Unary", data=data)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (grpc.StatusCode.OK, "OK"),
        (grpc.StatusCode.CANCELLED, "Canceled"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DeadlineExceeded"),
        (grpc.StatusCode.UNAVAILABLE, "Unavailable"),
    ],
)
def test_statuses_have_the_names_of_go(code: grpc.StatusCode, name: str) -> None:
    assert calls.status_name(code) == name


def test_certificates_that_are_not_there_are_named() -> None:
    asked = settings.from_values({"call": "a.B/C", "host": "x", "cacert": "/nowhere/ca.pem"})
    with pytest.raises(SettingsError, match=r"cacert: /nowhere/ca\.pem"):
        calls.open_channel(asked)
