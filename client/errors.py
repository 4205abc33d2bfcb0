"""What can go wrong for a caller of the client library: one class for each way to go on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ClientError(Exception):
    """Anything that the client cannot do; its text is for people."""


class RequestError(ClientError):
    """The server refused a request.

    `code` is one of the protocol's error codes, `retry_after_s` says when it may be worth another try, and `data`
    is everything else that the server said, such as `since`.
    """

    def __init__(
        self, code: str, message: str, *, retry_after_s: float | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.data: Mapping[str, Any] = data or {}


class InvalidTextError(ClientError):
    """A text that the server would refuse: too long, empty, or with control characters. Nothing was sent."""


class NotReadyError(ClientError):
    """What was asked needs a login or a connection that is not there now."""


class OutboxFullError(ClientError):
    """Too much is waiting to be acknowledged already. Nothing was queued."""


class OutboxUnwritableError(ClientError):
    """The disk takes nothing more. Nothing was queued."""


class ConnectionLostError(ClientError):
    """The connection ended before the answer came: whether the request was carried out is unknown."""


class DrainedError(ConnectionLostError):
    """The server ended before it took the request: it was not carried out."""


class ConnectError(ClientError):
    """No connection could be made; trying again later may help."""


class TrustError(ClientError):
    """The server could not prove who it is; trying again does not help.

    `fingerprint` is the SHA-256 of the certificate that was shown, where one was; `may_pin` says whether a person
    may decide to trust it (never when it contradicts what was trusted before).
    """

    def __init__(self, message: str, *, fingerprint: str | None = None, may_pin: bool = False) -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        self.may_pin = may_pin


class ProtocolError(ClientError):
    """The server's answer does not follow the protocol."""


class EventsLostError(ClientError):
    """The reader of an event stream fell so far behind that events were dropped; the stream has ended."""
