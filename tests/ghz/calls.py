"""One call over gRPC, of any of the four kinds, and how it ended."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from tests.ghz.durations import SECOND_NS
from tests.ghz.payloads import Payloads
from tests.ghz.settings import Settings, SettingsError
from tests.ghz.templates import Request

NO_LIMIT = -1
_CLOSED = "Channel closed!"  # what gRPC says of calls whose channel is closed under them
_SIZE = re.compile(r"(\d+)\s*([kMG]?i?)B?", re.IGNORECASE)
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True)
class Outcome:
    """How a call ended: when, after how long, with which of Go's status names, and the error's text or nothing."""

    ended_at: datetime
    latency_ns: int
    status: str
    error: str


def status_name(code: grpc.StatusCode) -> str:
    """The name that Go gives a status: OK, NotFound, DeadlineExceeded …, and Canceled with one l."""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"
    return "".join(word.capitalize() for word in code.name.split("_"))


def open_channel(settings: Settings) -> grpc.Channel:
    """A connection as the settings describe it; it is not there yet. Raises SettingsError for unreadable files."""
    options: list[tuple[str, int | str]] = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # so that several connections are several
        ("grpc.max_receive_message_length", _size("max-recv-message-size", settings.max_recv_message_size)),
        ("grpc.max_send_message_length", _size("max-send-message-size", settings.max_send_message_size)),
    ]
    if settings.keepalive:
        options.append(("grpc.keepalive_time_ms", max(1, settings.keepalive // 1_000_000)))
    if settings.insecure:
        if settings.authority:
            options.append(("grpc.default_authority", settings.authority))
        return grpc.insecure_channel(settings.host, options=options)
    if settings.cname:
        options.append(("grpc.ssl_target_name_override", settings.cname))
    pems = [_pem(key, getattr(settings, key)) for key in ("cacert", "key", "cert")]
    return grpc.secure_channel(settings.host, grpc.ssl_channel_credentials(*pems), options=options)


def _pem(key: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{key}: {path}: {error.strerror}") from error


def _size(key: str, text: str) -> int:
    if not text:
        return NO_LIMIT
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise SettingsError(f"{key}: {text!r} is no size")
    return int(match[1]) * _SIZES[match[2].lower()]


class Caller:
    """Makes calls, on each of its channels in turn."""

    def __init__(self, settings: Settings, payloads: Payloads, channels: list[grpc.Channel]) -> None:
        self._settings = settings
        self._payloads = payloads
        self._calls = [self._multi_callable(channel) for channel in channels]
        self._timeout_s = settings.timeout / SECOND_NS or None
        self._compression = grpc.Compression.Gzip if settings.enable_compression else None

    def __call__(self, request: Request, connection: int) -> Outcome:
        """Makes one call to its end. Raises SettingsError for data that cannot be sent."""
        messages = self._payloads.messages(request)
        method = self._payloads.method
        options = {
            "timeout": self._timeout_s,
            "metadata": self._payloads.metadata(request),
            "compression": self._compression,
        }
        ended = threading.Event()  # what a stream still has to send is not sent any more
        outgoing = self._paced(messages, ended) if method.client_streaming else next(messages)
        call = self._calls[connection % len(self._calls)]
        begun_ns = time.perf_counter_ns()
        try:
            response = call(outgoing, **options)
            if method.server_streaming:
                self._receive(response)
        except grpc.RpcError as error:
            return _outcome(begun_ns, error.code(), error.details() or "")
        finally:
            ended.set()
        return _outcome(begun_ns, grpc.StatusCode.OK, "")

    def _receive(self, responses: Any) -> None:
        timer = None
        if self._settings.stream_call_duration and not self._payloads.method.client_streaming:
            timer = threading.Timer(self._settings.stream_call_duration / SECOND_NS, responses.cancel)
            timer.start()
        try:
            for count, _ in enumerate(responses, start=1):
                if count == self._settings.stream_call_count and not self._payloads.method.client_streaming:
                    responses.cancel()
        finally:
            if timer is not None:
                timer.cancel()

    def _paced(self, messages: Iterator[Message], ended: threading.Event) -> Iterator[Message]:
        """Messages with `stream-interval` between them, for at most `stream-call-duration`."""
        duration_ns = self._settings.stream_call_duration
        until_ns = time.perf_counter_ns() + duration_ns
        for number, message in enumerate(messages):
            pause_ns: int = self._settings.stream_interval if number else 0
            if duration_ns:
                pause_ns = min(pause_ns, until_ns - time.perf_counter_ns())
            if pause_ns > 0 and ended.wait(pause_ns / SECOND_NS):
                return
            if duration_ns and time.perf_counter_ns() >= until_ns:
                return
            yield message

    def _multi_callable(self, channel: grpc.Channel) -> Any:
        method = self._payloads.method
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        return getattr(channel, kind)(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )


def _outcome(begun_ns: int, code: grpc.StatusCode, details: str) -> Outcome:
    latency_ns = time.perf_counter_ns() - begun_ns
    if code is grpc.StatusCode.CANCELLED and details == _CLOSED:  # nobody cancelled this call alone
        code, details = grpc.StatusCode.UNAVAILABLE, "the connection was closed when the time was up"
    status = status_name(code)
    error = "" if code is grpc.StatusCode.OK else f"rpc error: code = {status} desc = {details}"
    return Outcome(datetime.now(UTC).astimezone(), latency_ns, status, error)
