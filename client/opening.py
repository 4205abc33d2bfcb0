"""From the command line to a started session: which server, and why it is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from client.address import DEFAULT_HOST, Address
from client.arguments import Options
from client.chat import Chat
from client.errors import ConnectError, RequestError, TrustError
from client.events import Event
from client.failover import AnyOf
from client.files.book import books
from client.files.book import default_folder as books_folder
from client.known_hosts import KnownHosts, default_path
from client.outbox_file import default_folder, journals
from client.own_traces import OwnTraces
from client.session import Session
from client.stack import Stack, read_stack
from client.transport import TlsConnector
from client.trust import choose_trust, readable

YES = "yes"


def default_addresses(stack: Stack | None) -> tuple[Address, ...]:
    """Where to connect when nobody said: the edges of the stack here, or else the usual port of this machine."""
    if stack is not None and stack.client_ports:
        return tuple(Address(DEFAULT_HOST, port) for port in stack.client_ports)
    return (Address(),)


async def open_session(chat: Chat, options: Options) -> Address:
    """Connects, attaches the session to the chat, and returns where it is connected to.

    Asks whether to trust a certificate that nobody vouches for, where there is somebody to ask. Raises ConnectError,
    TrustError.
    """
    stack = _stack(options.home)
    addresses = (options.address, *options.others) if options.address else default_addresses(stack)
    known_hosts = KnownHosts(default_path(os.environ))
    stacks = [stack] if stack else []
    while True:
        trusts = [choose_trust(each, ca=options.ca, stacks=stacks, known_hosts=known_hosts) for each in addresses]
        connector = AnyOf([(each, TlsConnector(each, trust)) for each, trust in zip(addresses, trusts, strict=True)])
        traces = OwnTraces(now=chat.clock.now, tell=chat.tell_trace)
        session = Session(
            connector,
            on_event=_both(traces.on_event, chat.on_event),
            trace=traces.begin,
            clock=chat.clock,
            open_journal=journals(default_folder(os.environ), addresses[0]),
            open_book=books(books_folder(os.environ), addresses[0]),
        )
        chat.attach(session)
        try:
            await session.start()
        except TrustError as problem:
            address = connector.address
            if not (problem.may_pin and problem.fingerprint and await _may_trust(chat, address, problem.fingerprint)):
                raise
            known_hosts.trust(address, problem.fingerprint)
        else:
            return connector.address


def _both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        first(event)
        second(event)

    return listen


def _stack(home: Path) -> Stack | None:
    try:
        return read_stack(home)
    except ValueError as error:
        raise ConnectError(str(error)) from error


async def _may_trust(chat: Chat, address: Address, fingerprint: str) -> bool:
    answer = await chat.screen.ask(
        f"No authority that this machine knows vouches for {address}. Its certificate has the SHA-256 fingerprint\n"
        f"  {readable(fingerprint)}\n"
        "Compare it with what the server's operator says. Trust this certificate from now on? Type yes: "
    )
    return answer is not None and answer.strip().lower() == YES


async def log_in(session: Session, username: str, password: str, *, registers: bool) -> None:
    """Logs in; where `registers` is set and there is no such account, makes it first. Raises RequestError."""
    try:
        await session.login(username, password)
    except RequestError as problem:
        if not registers or problem.code != "invalid_credentials":
            raise
        try:
            await session.register(username, password)
        except RequestError as refusal:
            raise (problem if refusal.code == "username_taken" else refusal) from refusal
        await session.login(username, password)
