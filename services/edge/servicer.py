"""The servicer: what operators see and change at an edge. gRPC in, domain out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from parley.edge.v1 import edge_pb2, edge_pb2_grpc

from services.common.errors import ParleyError
from services.common.identity import peer_identity
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.common.wire.limits import MAX_TEXT_CHARS, PROTOCOL_VERSION
from services.common.wire.text import is_clean_text
from services.edge.decisions import Reply
from services.edge.directory import Directory
from services.edge.qos.classes import QosClass
from services.edge.qos.pump import ClassUpdate, Pump
from services.edge.qos.scheduler import ClassSnapshot
from services.edge.sampling import Sampler, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import grpc.aio

    from services.common.clock import Clock
    from services.edge.connection import Connection

    Context = grpc.aio.ServicerContext[Any, Any]

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000

DRAIN_S_MAX: Final = 60.0
"""Longer than any text waits for its answer and any client for its goodbye."""

TRACING_S_DEFAULT: Final = 600.0
TRACING_S_MAX: Final = 86_400.0
"""Nobody looks at traces for longer than a day; the targets are looked for in every text."""

TRACE_RATE_MIN: Final = 0.1
TRACE_RATE_MAX: Final = 1_000.0
"""Traces a second that sampling may begin: one in ten seconds, and what takes a tenth of a core."""

NAME_CHARS_MAX: Final = 64
"""Ids and usernames are shorter."""

_DIGITS_MAX: Final = 18
"""What fits into 64 bits."""

_MS_PER_S: Final = 1_000
_LABELS: Final = {qos_class.label: qos_class for qos_class in QosClass}

_log = get_logger(__name__)


class EdgeAdminServicer(edge_pb2_grpc.EdgeAdminServiceServicer):
    """`parley.edge.v1.EdgeAdminService`."""

    def __init__(
        self,
        *,
        directory: Directory[Connection],
        pump: Pump,
        drain: Callable[[float], Coroutine[Any, Any, None]],
        sampler: Sampler,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._pump = pump
        self._drain = drain
        self._sampler = sampler
        self._clock = clock

    async def ListConnections(  # noqa: N802
        self, request: edge_pb2.ListConnectionsRequest, _: Context
    ) -> edge_pb2.ListConnectionsResponse:
        """Lists the connections of this edge, oldest first."""
        size = request.page_size or PAGE_SIZE_DEFAULT
        if not 1 <= size <= PAGE_SIZE_MAX:
            raise ParleyError(ErrorCode.BAD_REQUEST, f"page_size: 1 to {PAGE_SIZE_MAX}")
        after = _number(request.page_token, "page_token") if request.page_token else 0
        page = self._directory.page(after=after, size=size + 1)
        return edge_pb2.ListConnectionsResponse(
            connections=[_connection(connection) for connection in page[:size]],
            next_page_token=str(page[size - 1].id) if len(page) > size else "",
        )

    async def Disconnect(  # noqa: N802
        self, request: edge_pb2.DisconnectRequest, context: Context
    ) -> edge_pb2.DisconnectResponse:
        """Closes a connection with `goodbye` revoked."""
        connection = self._directory.get(_number(request.connection_id, "connection_id"))
        if connection is None:
            raise ParleyError(ErrorCode.BAD_REQUEST, "connection_id: no such connection")
        _log.info("connection closed by an operator", connection_id=connection.id, operator=str(peer_identity(context)))
        connection.close("revoked")
        return edge_pb2.DisconnectResponse()

    async def SendNotice(  # noqa: N802
        self, request: edge_pb2.SendNoticeRequest, context: Context
    ) -> edge_pb2.SendNoticeResponse:
        """Shows a text to everyone who is logged in here, or who is in one room."""
        if not 1 <= len(request.text) <= MAX_TEXT_CHARS or not is_clean_text(request.text):
            raise ParleyError(ErrorCode.BAD_REQUEST, f"text: 1 to {MAX_TEXT_CHARS} characters, no control characters")
        room_id = request.room_id or None
        notice = Reply("notice", {"text": request.text}, room_id=room_id, lane=QosClass.CRITICAL)
        recipients = [
            one
            for one in self._directory
            if one.user is not None and one.version == PROTOCOL_VERSION and (room_id is None or room_id in one.room_ids)
        ]
        for connection in recipients:
            connection.reply(notice)
        _log.info("notice sent by an operator", recipients=len(recipients), operator=str(peer_identity(context)))
        return edge_pb2.SendNoticeResponse(recipient_count=len(recipients))

    async def Drain(self, request: edge_pb2.DrainRequest, context: Context) -> edge_pb2.DrainResponse:  # noqa: N802
        """Takes no more clients and says goodbye to those that are here."""
        if not 0 < request.grace_s <= DRAIN_S_MAX:  # NaN is not either
            raise ParleyError(ErrorCode.BAD_REQUEST, f"grace_s: above 0 and at most {DRAIN_S_MAX:g}")
        told = len(self._directory)
        _log.warning("drained by an operator", connections=told, operator=str(peer_identity(context)))
        # Whoever gives up waiting for the answer has drained the edge all the same: half of it is no state to be in.
        await asyncio.shield(asyncio.ensure_future(self._drain(request.grace_s)))
        return edge_pb2.DrainResponse(told_count=told, left_count=self._directory.open_count)

    async def GetQos(self, _: edge_pb2.GetQosRequest, __: Context) -> edge_pb2.GetQosResponse:  # noqa: N802
        """Shows the scheduler: targets, shares, what waits and what was done."""
        return edge_pb2.GetQosResponse(qos=self._qos())

    async def UpdateQos(  # noqa: N802
        self, request: edge_pb2.UpdateQosRequest, context: Context
    ) -> edge_pb2.UpdateQosResponse:
        """Changes class targets, shares and concurrency while running."""
        updates = []
        for change in request.classes:
            if change.name not in _LABELS:
                raise ParleyError(ErrorCode.BAD_REQUEST, f"name: one of {', '.join(_LABELS)}")
            updates.append(
                ClassUpdate(
                    _LABELS[change.name],
                    target_s=change.target_ms / _MS_PER_S if change.HasField("target_ms") else None,
                    share=change.share if change.HasField("share") else None,
                )
            )
        try:
            self._pump.configure(concurrency=request.concurrency or None, updates=updates)
        except ValueError as error:
            raise ParleyError(ErrorCode.BAD_REQUEST, str(error)) from None
        _log.info("quality of service changed", operator=str(peer_identity(context)))
        return edge_pb2.UpdateQosResponse(qos=self._qos())

    async def GetTracing(self, _: edge_pb2.GetTracingRequest, __: Context) -> edge_pb2.GetTracingResponse:  # noqa: N802
        """Shows what is traced at this edge."""
        return edge_pb2.GetTracingResponse(tracing=self._tracing())

    async def UpdateTracing(  # noqa: N802
        self, request: edge_pb2.UpdateTracingRequest, context: Context
    ) -> edge_pb2.UpdateTracingResponse:
        """Changes how much is sampled, until the next start."""
        sampler = self._sampler
        ratio = request.ratio if request.HasField("ratio") else sampler.ratio
        rate_max = request.rate_max if request.HasField("rate_max") else sampler.rate_max
        if not 0 <= ratio <= 1:  # NaN is not either
            raise ParleyError(ErrorCode.BAD_REQUEST, "ratio: 0 to 1")
        if not TRACE_RATE_MIN <= rate_max <= TRACE_RATE_MAX:
            raise ParleyError(ErrorCode.BAD_REQUEST, f"rate_max: {TRACE_RATE_MIN:g} to {TRACE_RATE_MAX:g}")
        sampler.configure(ratio=ratio, rate_max=rate_max)
        _log.info("sampling changed", operator=str(peer_identity(context)), ratio=ratio, rate_max=rate_max)
        return edge_pb2.UpdateTracingResponse(tracing=self._tracing())

    async def StartTracing(  # noqa: N802
        self, request: edge_pb2.StartTracingRequest, context: Context
    ) -> edge_pb2.StartTracingResponse:
        """Traces every message of a room or of a user for a while."""
        target = _target(request)
        duration_s = request.duration_s or TRACING_S_DEFAULT
        if not 0 < duration_s <= TRACING_S_MAX:  # NaN is not either
            raise ParleyError(ErrorCode.BAD_REQUEST, f"duration_s: above 0 and at most {TRACING_S_MAX:g}")
        now = self._clock.monotonic()
        self._sampler.watch(target, until=now + duration_s, now=now)
        _log.info("tracing begins", operator=str(peer_identity(context)), duration_s=duration_s, **target._asdict())
        return edge_pb2.StartTracingResponse(tracing=self._tracing())

    async def StopTracing(  # noqa: N802
        self, request: edge_pb2.StopTracingRequest, context: Context
    ) -> edge_pb2.StopTracingResponse:
        """Ends what StartTracing began."""
        target = _target(request)
        self._sampler.unwatch(target)
        _log.info("tracing ends", operator=str(peer_identity(context)), **target._asdict())
        return edge_pb2.StopTracingResponse(tracing=self._tracing())

    def _tracing(self) -> edge_pb2.Tracing:
        sampler = self._sampler
        now, unix_now = self._clock.monotonic(), self._clock.now()
        return edge_pb2.Tracing(
            ratio=sampler.ratio,
            rate_max=sampler.rate_max,
            targets=[
                _trace_target(target, int((unix_now + until - now) * _MS_PER_S))
                for target, until in sampler.targets(now).items()
            ],
            started=sampler.started,
            limited=sampler.limited,
        )

    def _qos(self) -> edge_pb2.Qos:
        return edge_pb2.Qos(
            concurrency=self._pump.concurrency,
            running=self._pump.running,
            classes=[_class(snapshot) for snapshot in self._pump.snapshot()],
        )


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ParleyError(ErrorCode.BAD_REQUEST, f"{name}: not one that was given out")
    return int(text)


def _target(request: edge_pb2.StartTracingRequest | edge_pb2.StopTracingRequest) -> Target:
    target = Target(room_id=request.room_id, username=request.username)
    if not 0 < len(target.room_id or target.username) <= NAME_CHARS_MAX:
        raise ParleyError(ErrorCode.BAD_REQUEST, "room_id or username: one of them is required")
    return target


def _trace_target(target: Target, ends_at_ms: int) -> edge_pb2.TraceTarget:
    if target.room_id:
        return edge_pb2.TraceTarget(room_id=target.room_id, ends_at_ms=ends_at_ms)
    return edge_pb2.TraceTarget(username=target.username, ends_at_ms=ends_at_ms)


def _connection(connection: Connection) -> edge_pb2.Connection:
    user = connection.user
    return edge_pb2.Connection(
        connection_id=str(connection.id),
        address=connection.address,
        user_id=user.user_id if user is not None else "",
        username=user.username if user is not None else "",
        protocol=connection.version,
        client=connection.session.client,
        connected_at_ms=int(connection.connected_at * _MS_PER_S),
        received_bytes=connection.received_bytes,
        sent_bytes=connection.sent_bytes,
        waiting_bytes=connection.waiting_bytes,
        room_count=len(connection.room_ids),
    )


def _class(snapshot: ClassSnapshot) -> edge_pb2.QosClass:
    return edge_pb2.QosClass(
        name=snapshot.qos_class.label,
        target_ms=snapshot.target_s * _MS_PER_S,
        share=snapshot.share,
        waiting=snapshot.waiting,
        oldest_waiting_ms=snapshot.oldest_s * _MS_PER_S,
        accepted=snapshot.accepted,
        refused=snapshot.refused,
        started=snapshot.started,
        wait_p50_ms=snapshot.wait_p50_s * _MS_PER_S,
        wait_p99_ms=snapshot.wait_p99_s * _MS_PER_S,
    )
