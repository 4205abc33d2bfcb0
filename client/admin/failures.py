"""What can go wrong for an operator: a typed refusal from a service, or nothing there to talk to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast
from urllib.parse import unquote

import grpc

UNREACHABLE = "unreachable"
"""The code where no service answered; the other codes are the services' own."""


class AdminError(Exception):
    """Something was not done; `code` is for programs, the text for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def from_rpc(error: grpc.RpcError, *, process: str) -> AdminError:
    """What a failed call says. The services send their code in the trailing metadata `parley-code`."""
    status: grpc.StatusCode = error.code()
    message = error.details() or status.name.lower()
    pairs = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    metadata = {key: value for key, value in pairs if isinstance(value, str)}
    code = metadata.get("parley-code")
    if code is not None:
        retry_after_s = metadata.get("parley-retry-after")
        return AdminError(unquote(code), message + (f" (try again in {retry_after_s} s)" if retry_after_s else ""))
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return AdminError(UNREACHABLE, f"{process} does not answer: {message}")
    if status in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return AdminError("forbidden", f"{process} does not let this identity do that: {message}")
    return AdminError("internal", f"{process} failed: {message} ({status.name.lower()})")
