"""The audit log: who did what, to whom or what, when, from where, and how it ended. One JSON line a call.

An interceptor around all others, so that no method can be forgotten and what is refused is seen too. It writes

- every call of an operator, to whatever service, and
- every attempt of anybody else to call what is for operators alone.

A line names the fields of the request that say what the call was about. A field that is marked `debug_redact` in its
.proto file, or is named like a secret, is blanked: no password and no text ever comes here. Reads that repeat within a
minute are written once, so that a screen which asks every second does not bury what was changed.

    {"ts":"2026-11-26T06:40:31.123Z","who":"admin/alice","method":"/parley.auth.v1.AuthAdminService/SetPassword",
     "target":{"username":"bob","password":"[redacted]"},"from":"ipv4:127.0.0.1:50412","outcome":"ok",
     "process":"auth-1","duration_ms":231}

`outcome` is `ok`, `cancelled`, or the error's code. The line of a call that succeeds is written before its caller has
the answer; that of one that fails, a moment after.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message

from services.common.errors import CODE_KEY
from services.common.identity import ADMIN, peer_identity
from services.common.interceptors import take_apart
from services.common.log_file import LogFile
from services.common.logs import get_logger, is_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Any

# Nobody but who runs the services: it says who talks when, and from where.
FILE_MODE: Final = 0o600
# A line is for reading, and one write; whoever sends more than this shows it to no operator.
VALUE_CHARS_MAX: Final = 200
TARGET_FIELDS_MAX: Final = 20
# Lists of class updates and the like; what is deeper is not what a call is about.
_DEPTH_MAX: Final = 3

READ_REPEAT_S: Final = 60.0
_REMEMBERED_READS_MAX: Final = 1_000
_READS: Final = ("Get", "List", "Watch", "Stream", "Check")
"""How the methods are named that change nothing. Whatever is named otherwise is written each time."""

_REDACTED: Final = "[redacted]"
_log = get_logger(__name__)


class AuditInterceptor(grpc.aio.ServerInterceptor):
    """Writes the audit log to `file`. `allow` is what the guard has: full service name → kinds of identity."""

    def __init__(
        self,
        file: Path,
        *,
        process: str,
        allow: Mapping[str, frozenset[str]],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = LogFile(file, mode=FILE_MODE)
        self._process = process
        self._allow = dict(allow)
        self._now = now
        self._monotonic = monotonic
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        self._reads: OrderedDict[tuple[str, ...], float] = OrderedDict()  # what was read → when it was written

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler, wrapped. The guard has made it one that writes to the context itself."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = self._wrap(method, handler)
        if method.strip("/").partition("/")[0] in self._allow:  # what does not exist is not worth remembering
            self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        run, make = take_apart(handler)
        is_for_operators = self._allow.get(method.strip("/").partition("/")[0]) == frozenset({ADMIN})

        async def audited(request: Any, context: Context) -> Any:
            identity = peer_identity(context)
            is_operator = identity is not None and identity.kind == ADMIN
            if not is_operator and not is_for_operators:
                return await run(request, context)
            started = self._monotonic()
            outcome = "ok"
            try:
                return await run(request, context)
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            except BaseException:
                outcome = _code(context)
                raise
            finally:
                self._write(
                    method, str(identity or "unknown"), request, context.peer(), outcome, self._monotonic() - started
                )

        return make(
            audited,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _write(self, method: str, who: str, request: Any, peer: str, outcome: str, duration_s: float) -> None:
        target = describe(request) if isinstance(request, Message) else {}
        if outcome in ("ok", "cancelled") and self._is_repeated(method, who, peer, target):
            return
        line = {
            "ts": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "who": who,
            "method": method[: 2 * VALUE_CHARS_MAX],
            "target": target,
            "from": peer,
            "outcome": outcome,
            "process": self._process,
            "duration_ms": round(duration_s * 1_000),
        }
        # ASCII only, as in the logs: what a terminal takes for a control stays escaped.
        if not self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n"):
            _log.error("audit line lost", method=line["method"], identity=who, outcome=outcome, peer=peer)

    def _is_repeated(self, method: str, who: str, peer: str, target: Mapping[str, Any]) -> bool:
        if not method.rpartition("/")[2].startswith(_READS):
            return False
        # A new connection comes from another port.
        key = (who, method, peer.rpartition(":")[0], json.dumps(target))
        now = self._monotonic()
        written_at = self._reads.get(key)
        if written_at is not None and now - written_at < READ_REPEAT_S:
            return True
        self._reads[key] = now
        self._reads.move_to_end(key)
        if len(self._reads) > _REMEMBERED_READS_MAX:
            self._reads.popitem(last=False)
        return False


def describe(request: Message, depth: int = 0) -> dict[str, Any]:
    """What a request is about: its fields that are set, without secrets, shortened."""
    found: dict[str, Any] = {}
    for field, value in request.ListFields()[:TARGET_FIELDS_MAX]:
        if field.GetOptions().debug_redact or is_secret(field.name):
            found[field.name] = _REDACTED
        elif field.is_repeated and not hasattr(value, "items"):  # a map has them
            found[field.name] = [_value(one, depth) for one in list(value)[:TARGET_FIELDS_MAX]]
        else:
            found[field.name] = _value(value, depth)
    return found


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, Message):
        return describe(value, depth + 1) if depth < _DEPTH_MAX else "…"
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else f"({type(value).__name__})"
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…"


def _code(context: Context) -> str:
    """The Parley code with which the guard has ended the call."""
    for key, value in context.trailing_metadata() or ():
        if key == CODE_KEY:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return "aborted"
