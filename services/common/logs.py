"""Structured logs: one JSON line an event, on stderr and in a file that all processes share.

Log ids, never secrets or texts. As a last resort the values of keys that are named like a secret are blanked here.
A line that is logged within a span carries its trace and span ids. Lines may be handed over to somebody else as well.
Records of the standard library's loggers (grpc, sqlalchemy, opentelemetry) come the same way, warnings and up.
"""

from __future__ import annotations

import json
import logging
import math
import select
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from opentelemetry import trace

from services.common.log_file import LogFile

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_SECRET_KEYS: Final = frozenset({"password", "token", "text", "secret", "key"})
_SECRET_ENDINGS: Final = ("_password", "_token", "_secret")
_REDACTED: Final = "[redacted]"
# A line is for reading; a longer value is a mistake, and must not fill the disk.
_VALUE_CHARS_MAX: Final = 8_000
# A deeper value is a mistake too, or refers to itself.
_DEPTH_MAX: Final = 8
_in_force: Final = ["info"]
# Takes each event, cleaned; must not wait, raise or log.
Taker = Callable[[Mapping[str, Any]], object]
_taker: Final[list[Taker | None]] = [None]


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger that adds `"logger": name` to each event: `log.info("room created", room_id=…)`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(service: str, *, level: str = "info", file: Path | None = None) -> None:
    """Sends all logs of this process to stderr and, where given, to `file`. May be called again."""
    if level not in LEVELS:
        raise ValueError(f"log_level: one of {', '.join(LEVELS)}, not {level!r}")
    log_file = LogFile(file) if file is not None else None
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_trace,
            structlog.processors.add_log_level,
            _add_names(service),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            redact,
            _hand_over,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda name="": _LineLogger(name, log_file),
        cache_logger_on_first_use=False,
    )
    _in_force[0] = level
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _StructlogHandler)]:
        root.removeHandler(handler)
    root.addHandler(_StructlogHandler(logging.WARNING))


def current_level() -> str:
    """The level in force: what is below it is not logged."""
    return _in_force[0]


def set_level(wanted: str) -> None:
    """Changes the level of this process, for all loggers that there are. Raises ValueError."""
    if wanted not in LEVELS:
        raise ValueError(f"log_level: one of {', '.join(LEVELS)}, not {wanted!r}")
    # Loggers look their settings up at each event (cache_logger_on_first_use is off), so they all follow.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[wanted]))
    _in_force[0] = wanted


def hand_over(taker: Taker | None) -> None:
    """From now on `taker` is given each event; None: nobody is."""
    _taker[0] = taker


def _hand_over(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (taker := _taker[0]) is not None:
        taker(event)
    return event


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds the ids of the span that the event happens in, where there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blanks the values of keys that are named like a secret, at any depth."""
    return {key: _REDACTED if is_secret(key) else _clean(value, 0) for key, value in event.items()}


def render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """The event as one line of JSON, the same keys first in every line."""
    first = {key: event.pop(key, None) for key in ("ts", "level", "service", "event")}
    # ASCII only: what a terminal or a line splitter takes for a control, such as U+0085 or U+2028, stays escaped.
    return json.dumps({**first, **event}, separators=(",", ":"), default=repr)


def is_secret(key: object) -> bool:
    """Whether a value of this name is never written anywhere."""
    return isinstance(key, str) and (key.lower() in _SECRET_KEYS or key.lower().endswith(_SECRET_ENDINGS))


def _clean(value: object, depth: int) -> object:
    if depth > _DEPTH_MAX:
        return "…"
    if isinstance(value, dict):
        return {str(k): _REDACTED if is_secret(k) else _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _VALUE_CHARS_MAX else text[:_VALUE_CHARS_MAX] + "…"


def _add_names(service: str) -> Callable[[WrappedLogger, str, EventDict], MutableMapping[str, Any]]:
    def add(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        event["logger"] = logger.name
        return event

    return add


def _takes_a_line() -> bool:
    """Whether a line can be written to stderr without waiting: a pipe that is not read takes 64 KiB and then stops its
    writer."""
    try:
        poll = select.poll()
        poll.register(sys.stderr.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return True


class _LineLogger:
    """Where structlog's rendered lines go; a log that cannot be written never stops the service."""

    def __init__(self, name: str, file: LogFile | None) -> None:
        self.name = name
        self._file = file

    def msg(self, line: str) -> None:
        data = line + "\n"
        if self._file is not None:
            self._file.write(data.encode("utf-8", "replace"))
            if not _takes_a_line():  # whoever reads it does not: the file has the line
                return
        try:
            sys.stderr.write(data)
            sys.stderr.flush()
        except (OSError, ValueError):  # closed by whoever started the process
            pass

    debug = info = warning = error = critical = exception = fatal = warn = log = msg


class _StructlogHandler(logging.Handler):
    """Hands the standard library's records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = get_logger(record.name)
            message = record.getMessage()
            exc_info = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
            log.log(record.levelno, message, exc_info=exc_info)
        except Exception:  # noqa: BLE001 - logging must not fail its caller; this is the library's own way out
            self.handleError(record)
