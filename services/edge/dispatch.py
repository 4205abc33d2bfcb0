"""Dispatch: runs commands as tasks, and turns their ends into replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.common.wire.events import iso_time
from services.edge.command_spans import CommandSpans
from services.edge.decisions import Command, Reply, failure
from services.edge.handlers import Gone, Handlers
from services.edge.request_rules import ENTERS_OR_LEAVES

_UNANSWERED: Final = {
    ErrorCode.UNAVAILABLE: "a part of the server is not available; try again in a moment",
    ErrorCode.FORBIDDEN: "this is not allowed",
}
_ABANDONED: Final = "the server restarts, and it is not known whether this was done"
_INTERNAL: Final = "something went wrong on the server"

_log = get_logger(__name__)


class Dispatcher:
    """Runs commands, with `spans` around those that are traced."""

    def __init__(self, handlers: Handlers, tasks: TaskSet, spans: CommandSpans) -> None:
        self._handlers = handlers
        self._tasks = tasks
        self._spans = spans
        self._running: dict[int, Command] = {}

    def start(self, command: Command, done: Callable[[], None]) -> None:
        """Begin a command; its connection is told the reply. `done` is called at the end, whatever the end."""
        self._tasks.spawn(self._run(command, done), name=f"command {command.request.type}")

    def abandon(self) -> None:
        """Answer what is still under way with unknown_outcome, for nobody will be told how it ends."""
        for command in list(self._running.values()):
            command.connection.complete(command, refusal(command, ParleyError(ErrorCode.UNKNOWN_OUTCOME, _ABANDONED)))

    async def _run(self, command: Command, done: Callable[[], None]) -> None:
        self._running[id(command)] = command
        try:
            with self._spans.around(command) as watched:
                reply = watched.reply = await self._answer(command)
            if reply is not None:
                command.connection.complete(command, reply)
        finally:
            del self._running[id(command)]
            done()

    async def _answer(self, command: Command) -> Reply | bytes | None:
        request = command.request
        try:
            answer = await self._handlers.handle(command.connection, command)
        except ParleyError as error:
            return refusal(command, error)
        except Gone:
            return None
        except Exception:  # noqa: BLE001 - a defect must not leave the client without an answer
            _log.exception("command failed", request=request.type, connection_id=command.connection.id)
            return refusal(command, ParleyError(ErrorCode.INTERNAL, _INTERNAL))
        if answer.frame is not None:
            return answer.frame
        in_order = type(request) in ENTERS_OR_LEAVES
        return Reply(answer.type, answer.data, command.re, answer.room_id, command.qos_class, in_order)


def shown_message(error: ParleyError) -> str:
    """What people are told of a failure; what gRPC says to operators is not for them."""
    return _UNANSWERED.get(error.code, _INTERNAL) if "status" in error.details else error.message


def refusal(command: Command, error: ParleyError) -> Reply:
    """The reply to a command that was refused."""
    details: dict[str, Any] = {}
    if since_ms := error.details.get("since-ms"):
        details["since"] = iso_time(int(since_ms) / 1000)
    return failure(
        command.request.type,
        command.re,
        error.code,
        shown_message(error),
        retry_after_s=error.retry_after_s,
        details=details,
        lane=command.qos_class,
    )
