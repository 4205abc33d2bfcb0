"""Channels to the services of a stack: mutual TLS, each service under its own name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import grpc

from client.admin.failures import UNREACHABLE, AdminError, from_rpc
from client.stack import STACK_FILE, Process, Stack, read_stack

CALL_TIMEOUT_S = 10.0
"""Drawing graphs takes seconds; everything else milliseconds."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_http_proxy", 0),  # these calls never leave the installation
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)

T = TypeVar("T")


class Channels(Protocol):
    """Opens channels to processes."""

    def processes(self, service: str) -> tuple[Process, ...]:
        """The running processes of a service."""
        ...

    def open(self, process: Process) -> grpc.Channel:
        """A channel to one process."""
        ...


@dataclass(frozen=True)
class Identity:
    """An operator's certificate and key, and the authority that vouches for the services; all as PEM."""

    certificate: bytes
    key: bytes
    authority: bytes


class StackChannels:
    """Channels to a stack on this machine."""

    def __init__(self, stack: Stack, identity: Identity) -> None:
        self._stack = stack
        self._credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)

    def processes(self, service: str) -> tuple[Process, ...]:
        """The running processes of a service."""
        return self._stack.of_service(service)

    def open(self, process: Process) -> grpc.Channel:
        """A channel to one process, which has to prove that it is of its service."""
        name = f"{process.service}.parley.internal"
        options = [*OPTIONS, ("grpc.ssl_target_name_override", name)]
        return grpc.secure_channel(process.grpc, self._credentials, options=options)


def open_stack(home: Path, identity_name: str) -> StackChannels:
    """The channels of the stack whose home is `home`. Raises AdminError where there is no stack or no identity."""
    try:
        stack = read_stack(home)
    except ValueError as error:
        raise AdminError(UNREACHABLE, str(error)) from error
    if stack is None:
        raise AdminError(UNREACHABLE, f"No stack is up here: there is no {home / STACK_FILE}. --home says where it is.")
    folder = home / "certificates"
    identity = Identity(
        _read(folder / f"admin-{identity_name}-cert.pem", identity_name),
        _read(folder / f"admin-{identity_name}-key.pem", identity_name),
        _read(stack.grpc_ca, identity_name),
    )
    return StackChannels(stack, identity)


def _read(path: Path, identity_name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AdminError(
            "forbidden",
            f"There is no {path}: `parley certs admin {identity_name}` makes the identity {identity_name}.",
        ) from error
    except OSError as error:
        raise AdminError("forbidden", f"{path}: {error.strerror}") from error


def ask_one(channels: Channels, service: str, call: Callable[[grpc.Channel], T]) -> T:
    """Calls one process of a service; one that does not answer is passed over for the next. Raises AdminError."""
    problem = AdminError(UNREACHABLE, f"No {service} process is up.")
    for process in channels.processes(service):
        try:
            return _call(channels, process, call)
        except AdminError as error:
            if error.code != UNREACHABLE:
                raise
            problem = error
    raise problem


def ask_each(
    channels: Channels, service: str, call: Callable[[grpc.Channel], T], *, only: str | None = None
) -> Iterator[tuple[str, T]]:
    """Calls every process of a service, or the one named `only`; yields names and answers. Raises AdminError."""
    chosen = [process for process in channels.processes(service) if only in (None, process.name)]
    if not chosen:
        running = ", ".join(process.name for process in channels.processes(service)) or "none"
        raise AdminError(UNREACHABLE, f"No such {service} process is up (running: {running}).")
    for process in chosen:
        yield process.name, _call(channels, process, call)


def _call(channels: Channels, process: Process, call: Callable[[grpc.Channel], T]) -> T:
    channel = channels.open(process)
    try:
        return call(channel)
    except grpc.RpcError as error:
        raise from_rpc(error, process=process.name) from error
    finally:
        channel.close()
