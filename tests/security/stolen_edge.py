"""A stolen edge identity: somebody has the certificate and the key of an edge, and knows every id there is."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from parley.auth.v1 import auth_pb2, auth_pb2_grpc
from parley.rooms.v1 import feed_pb2, feed_pb2_grpc, files_pb2, files_pb2_grpc, rooms_pb2, rooms_pb2_grpc

from services.common.assertions import METADATA_KEY, Claims, key_id
from services.common.rpc_client import name_options
from tests.helpers import columns
from tests.security.attempt import PASSWORD, Attempt, Check, NotApplicableError, demand, fresh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.helpers.raw_client import RawClient

_CALL_S = 10.0
_BOOT = auth_pb2.EdgeBoot(name="edge-stolen", boot_id="0123456789abcdef")
_SETTLE_S = 1.0
"""A text that was taken would have been shown by then."""


class Thief:
    """Calls services with the edge's own certificate."""

    def __init__(self, attempt: Attempt) -> None:
        home = attempt.target.home
        if home is None:
            raise NotApplicableError("needs --home: the stack runs elsewhere")
        folder = home / "certificates"
        self._credentials = grpc.ssl_channel_credentials(
            (folder / "grpc-ca-cert.pem").read_bytes(),
            (folder / "edge-key.pem").read_bytes(),
            (folder / "edge-cert.pem").read_bytes(),
        )
        processes = json.loads((home / "run" / "stack.json").read_text())["processes"]
        self._ports = {process["name"]: process["grpc"].rpartition(":")[2] for process in processes}
        self._attempt = attempt

    async def channel(self, service: str) -> grpc.aio.Channel:
        target = f"127.0.0.1:{self._ports[service + '-1']}"
        channel = grpc.aio.secure_channel(target, self._credentials, options=name_options(service))
        return await self._attempt.exits.enter_async_context(channel)

    async def own_assertion(self) -> bytes:
        """Of an account of the thief's own, logged in through the edge that the thief pretends to be."""
        auth: Any = auth_pb2_grpc.AuthServiceStub(await self.channel("auth"))
        name = fresh()
        await auth.Register(auth_pb2.RegisterRequest(username=name, password=PASSWORD), timeout=_CALL_S)
        answer = await auth.Login(auth_pb2.LoginRequest(username=name, password=PASSWORD, edge=_BOOT), timeout=_CALL_S)
        return bytes(answer.assertion.data)


def _forged(victim: rooms_pb2.Session) -> bytes:
    """Signed with a key that the thief has made, under its own name."""
    key = Ed25519PrivateKey.generate()
    now = time.time()
    claims = Claims(
        session_id=victim.session_id,
        user_id=victim.user_id,
        username=victim.username,
        edge=_BOOT.name,
        boot_id=_BOOT.boot_id,
        issued_at=now,
        expires_at=now + 900,
    )
    payload = msgspec.json.encode(claims)
    return b"\x01" + key_id(key.public_key()) + key.sign(b"parley session assertion 1\0" + payload) + payload


async def _refused(what: str, call: Awaitable[Any]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        demand(error.code() is grpc.StatusCode.UNAUTHENTICATED, f"{what}: {error.code().name}")
    else:
        demand(False, f"{what} was answered")


async def check_calls_for_others(attempt: Attempt) -> str:
    thief, (victim, room_id, session) = Thief(attempt), await _victim(attempt)
    rooms: Any = rooms_pb2_grpc.RoomsServiceStub(await thief.channel("rooms"))
    files: Any = files_pb2_grpc.FileServiceStub(await thief.channel("rooms"))
    user = session.user_id
    words = {"none": None, "forged": _forged(session), "the thief's own": await thief.own_assertion()}
    count = 0
    for kind, word in words.items():
        options: dict[str, Any] = {"timeout": _CALL_S}
        if word is not None:
            options["metadata"] = ((METADATA_KEY, word),)
        calls = {
            "OpenSession": rooms.OpenSession(rooms_pb2.OpenSessionRequest(session=session), **options),
            "JoinRoom": rooms.JoinRoom(rooms_pb2.JoinRoomRequest(session=session, room=room_id), **options),
            "LeaveRoom": rooms.LeaveRoom(rooms_pb2.LeaveRoomRequest(session=session, room=room_id), **options),
            "CreateRoom": rooms.CreateRoom(rooms_pb2.CreateRoomRequest(session=session, name=fresh()), **options),
            "ListMessages": rooms.ListMessages(rooms_pb2.ListMessagesRequest(user_id=user, room=room_id), **options),
            "ListMembers": rooms.ListMembers(rooms_pb2.ListMembersRequest(user_id=user, room=room_id), **options),
            "ListFiles": files.ListFiles(files_pb2.ListFilesRequest(user_id=user, room=room_id), **options),
        }
        for name, call in calls.items():
            await _refused(f"{name} for somebody else with {kind}", call)
            count += 1
    reply = await victim.request("heartbeat")
    demand(reply["type"] == "heartbeat", "the victim suffered")
    return f"{count} calls refused"


async def check_texts_of_others(attempt: Attempt) -> str:
    thief, (victim, room_id, session) = Thief(attempt), await _victim(attempt)
    own, forged = await thief.own_assertion(), _forged(session)
    stub: Any = feed_pb2_grpc.RoomFeedServiceStub(await thief.channel("rooms"))

    async def requests() -> AsyncIterator[feed_pb2.AttachRequest]:
        hello = feed_pb2.EdgeHello(edge_name=_BOOT.name, boot_id=_BOOT.boot_id)
        session.assertion = forged
        hello.sessions.add(session=session, room_ids=[room_id])
        yield feed_pb2.AttachRequest(hello=hello)
        for number, words in enumerate(([], [forged], [own]), 1):
            row = columns.PublishRow(
                number, room_id, session.user_id, victim.username, f"stolen {number}", f"k{number}"
            )
            yield feed_pb2.AttachRequest(publishes=columns.publishes(row), assertions=words)
        await asyncio.Event().wait()

    stream = stub.Attach(requests())
    refused = 0
    async with asyncio.timeout(_CALL_S):
        async for response in stream:
            demand(not response.stored.numbers, "a text was stored in the name of somebody else")
            refused += len([result for result in response.results if result.error_code])
            if refused == 3:
                break
    stream.cancel()
    await asyncio.sleep(_SETTLE_S)
    page = await victim.expect("history", {"limit": 50}, room_id=room_id)
    said = [message["text"] for message in page["messages"]]
    demand(said == ["mine"], f"the room holds {said}")
    return f"{refused} texts refused"


async def check_assertions_for_others(attempt: Attempt) -> str:
    thief, (_, _, session) = Thief(attempt), await _victim(attempt)
    auth: Any = auth_pb2_grpc.AuthServiceStub(await thief.channel("auth"))
    own = await thief.own_assertion()
    other = auth_pb2.EdgeBoot(name="edge-1", boot_id="0123456789abcdef")
    for edge, word in ((_BOOT, _forged(session)), (_BOOT, session.session_id.encode()), (_BOOT, b""), (other, own)):
        request = auth_pb2.RenewAssertionsRequest(edge=edge, assertions=[word])
        await _refused("RenewAssertions", auth.RenewAssertions(request, timeout=_CALL_S))
    return "4 refused"


async def _victim(attempt: Attempt) -> tuple[RawClient, str, rooms_pb2.Session]:
    """Somebody with a room and a text in it; and their session, as the thief would name it."""
    client = await attempt.connect()
    answer = await client.enter(fresh(), PASSWORD)
    room_id = str((await client.expect("create_room", {"name": fresh()}))["room_id"])
    await client.say(room_id, "mine")
    session = rooms_pb2.Session(
        session_id="stolen", user_id=answer["user_id"], username=client.username, edge_boot_id=_BOOT.boot_id
    )
    return client, room_id, session


CHECKS: dict[str, Check] = {
    "a stolen edge identity does not act for others": check_calls_for_others,
    "a stolen edge identity does not speak for others": check_texts_of_others,
    "a stolen edge identity gets no assertions for others": check_assertions_for_others,
}
