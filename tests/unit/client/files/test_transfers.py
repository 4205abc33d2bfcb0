"""Transfers of a session at a fake edge: to their end, through cuts, restarts of the client and refusals."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from client.address import Address
from client.errors import NotReadyError
from client.events import Event, FileEnded, FileResumed, FileWaits
from client.files.answers import FileInfo
from client.files.book import books
from client.files.errors import FileError, TooManyTransfersError
from client.files.transfer import Phase, Transfer
from client.files.transfers import AT_ONCE, TRANSFERS_MAX
from client.session import Session
from services.common.clock import FakeClock
from services.common.wire.codes import ErrorCode
from tests.helpers.fake_edge import FakeEdge, FakeRoom
from tests.helpers.fake_file_desk import FakeFile

DATA = os.urandom(3_000_001)
WAIT_S = 20.0


class World:
    """A session at a fake edge, a folder with a file, and one for downloads."""

    def __init__(self, folder: Path) -> None:
        self.edge = FakeEdge()
        self.edge.accounts = {"ada": "correct horse", "bob": "battery staple"}
        self.edge.keeps_tokens = True
        self.room: FakeRoom = self.edge.add_room("tea", "ada", "bob")
        self.clock = FakeClock()
        self.folder = folder
        self.path = folder / "plan.bin"
        self.path.write_bytes(DATA)
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.events: list[Event] = []
        self.session = self.new_session()

    def new_session(self) -> Session:
        return Session(
            self.edge,
            on_event=self.events.append,
            clock=self.clock,
            uniform=lambda low, _: low,
            open_book=books(self.folder / "state", Address("localhost", 1)),
        )

    async def begin(self) -> None:
        await self.session.start()
        await self.session.login("ada", "correct horse")

    async def again(self) -> None:
        """The client ends, and another one begins."""
        await self.session.close()
        self.session = self.new_session()
        await self.begin()

    async def until(self, is_so: Callable[[], object], *, advance_s: float = 0.5) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_so():
                await self.clock.advance(advance_s)
                await asyncio.sleep(0.001)

    async def ended(self, transfer: Transfer) -> Transfer:
        await self.until(lambda: transfer.is_ended)
        return transfer

    async def send(self, path: Path | None = None) -> Transfer:
        return await self.session.files.send(self.room.room_id, path or self.path)

    async def fetch(self, file: FakeFile, wanted: str = "") -> Transfer:
        info = FileInfo(file.file_id, file.offer.name, file.offer.size, file.offer.sha256)
        return await self.session.files.fetch(info, self.downloads, wanted)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.downloads.iterdir())

    @property
    def files(self) -> list[FakeFile]:
        return list(self.edge.files.files.values())


def saved(transfer: Transfer) -> bytes:
    return Path(transfer.saved_as).read_bytes()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.begin()
    yield world
    await world.session.close()


async def test_a_file_is_sent(world: World) -> None:
    transfer = await world.ended(await world.send())
    assert (transfer.phase, transfer.done_bytes, transfer.sent_bytes) == (Phase.DONE, len(DATA), len(DATA))
    [file] = world.files
    assert (bytes(file.data), file.offer.name, file.offer.mime) == (DATA, "plan.bin", "application/octet-stream")
    assert world.of(FileEnded) == [FileEnded(transfer)]
    assert list(world.session.files) == []


async def test_a_file_is_fetched(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "../../plan.bin", DATA)
    transfer = await world.ended(await world.fetch(file))
    assert transfer.phase is Phase.DONE
    assert world.names() == ["plan.bin"]
    assert saved(transfer) == DATA
    assert world.edge.files.acknowledgements[-1] == len(DATA)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_048_576])
async def test_sizes_there_and_back(world: World, size: int) -> None:
    path = world.folder / "x"
    path.write_bytes(DATA[:size])
    await world.ended(await world.send(path))
    transfer = await world.ended(await world.fetch(world.files[0]))
    assert saved(transfer) == DATA[:size]


async def test_what_is_known_of_a_file_may_be_its_id_alone(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "\x1b[2Jplan.bin", DATA)
    transfer = await world.session.files.fetch(FileInfo(file.file_id, "", 0, ""), world.downloads)
    await world.ended(transfer)
    assert world.names() == ["_[2Jplan.bin"]


async def test_an_upload_goes_on_over_another_connection(world: World) -> None:
    world.edge.files.takes_bytes_max = 1_000_000
    transfer = await world.ended(await world.send())
    assert transfer.phase is Phase.DONE
    [file] = world.files
    assert bytes(file.data) == DATA
    assert world.edge.files.received_bytes == len(DATA)
    assert len(world.edge.sent("file_offer")) == 2
    assert transfer.sent_bytes < len(DATA) + 1_048_577


async def test_a_lost_end_posts_nothing_twice(world: World) -> None:
    world.edge.files.is_done_lost = True
    transfer = await world.ended(await world.send())
    assert transfer.phase is Phase.DONE
    assert len(world.files) == 1
    assert [message.file is not None for message in world.room.log] == [True]


async def test_a_download_goes_on_over_another_connection(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.sends_bytes_max = 1_500_000
    transfer = await world.fetch(file)
    await world.until(lambda: transfer.done_bytes >= 1_500_000, advance_s=0.0)
    world.edge.files.sends_bytes_max = None
    world.edge.cut()
    await world.ended(transfer)
    assert saved(transfer) == DATA
    assert world.edge.sent("file_get")[1]["offset"] >= 1_500_000
    assert world.names() == ["plan.bin"]


async def test_an_upload_goes_on_in_another_run(world: World) -> None:
    world.edge.files.stores = False
    await world.send()
    await world.until(lambda: world.edge.files.received_bytes)
    world.edge.files.stores = True
    await world.again()
    await world.until(lambda: world.of(FileEnded))
    assert len(world.of(FileResumed)) == 1
    [file] = world.files
    assert bytes(file.data) == DATA
    assert world.edge.sent("file_offer")[0]["transfer_id"] == world.edge.sent("file_offer")[1]["transfer_id"]
    assert list(world.session.files) == []
    await world.again()
    assert len(world.of(FileResumed)) == 1


async def test_a_download_goes_on_in_another_run(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.sends_bytes_max = 500_000
    transfer = await world.fetch(file)
    await world.until(lambda: transfer.done_bytes >= 500_000, advance_s=0.0)
    world.edge.files.sends_bytes_max = None
    await world.again()
    await world.until(lambda: world.of(FileEnded))
    assert (world.downloads / "plan.bin").read_bytes() == DATA
    assert world.edge.sent("file_get")[1]["offset"] >= 500_000
    assert world.names() == ["plan.bin"]


async def test_a_part_that_was_spoilt_between_runs_is_fetched_anew(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.sends_bytes_max = 500_000
    transfer = await world.fetch(file)
    await world.until(lambda: transfer.done_bytes >= 500_000, advance_s=0.0)
    world.edge.files.sends_bytes_max = None
    await world.session.close()
    [part] = world.downloads.iterdir()
    part.write_bytes(bytes(part.stat().st_size))
    world.session = world.new_session()
    await world.begin()
    await world.until(lambda: world.of(FileEnded))
    assert (world.downloads / "plan.bin").read_bytes() == DATA
    assert world.names() == ["plan.bin"]


async def test_a_file_that_changed_between_runs_is_not_sent(world: World) -> None:
    world.edge.files.stores = False
    await world.send()
    await world.until(lambda: world.edge.files.received_bytes)
    await world.session.close()
    world.path.write_bytes(DATA[::-1])
    world.session = world.new_session()
    await world.begin()
    await world.until(lambda: world.of(FileEnded))
    [ended] = world.of(FileEnded)
    assert isinstance(ended, FileEnded)
    assert ended.transfer.phase is Phase.FAILED
    assert "has changed" in ended.transfer.reason
    await world.until(lambda: not world.files)  # the server keeps nothing of it


async def test_wrong_bytes_are_never_saved(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.spoils.append(file.file_id)
    transfer = await world.ended(await world.fetch(file))
    assert transfer.phase is Phase.FAILED
    assert "not what was sent" in transfer.reason
    assert world.names() == []


async def test_what_passes_is_waited_for(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.refuse("file_get", ErrorCode.OVERLOADED, retry_after_s=3.0)
    world.edge.refuse("file_offer", ErrorCode.UNAVAILABLE)
    one, other = await world.fetch(file), await world.send()
    await world.ended(one)
    await world.ended(other)
    assert {one.phase, other.phase} == {Phase.DONE}
    assert len(world.of(FileWaits)) == 2
    assert world.clock.monotonic() >= 3.0


@pytest.mark.parametrize("code", [ErrorCode.NOT_A_MEMBER, ErrorCode.QUOTA_EXCEEDED, ErrorCode.TOO_LARGE])
async def test_what_is_refused_for_good(world: World, code: ErrorCode) -> None:
    world.edge.refuse("file_offer", code)
    world.edge.refuse("file_get", code)
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    for transfer in (await world.send(), await world.fetch(file)):
        await world.ended(transfer)
        assert (transfer.phase, transfer.reason) == (Phase.FAILED, f"refused: {code}")
    assert world.names() == []
    assert list(world.session.files) == []


async def test_a_refusal_half_way_leaves_nothing(world: World) -> None:
    world.edge.files.stores = False
    transfer = await world.send()
    await world.until(lambda: world.edge.files.received_bytes)
    [file] = world.files
    world.edge.files.fail(world.edge.connections[0], file, ErrorCode.QUOTA_EXCEEDED)
    await world.ended(transfer)
    assert transfer.phase is Phase.FAILED
    await world.until(lambda: not world.files)


async def test_a_download_that_the_server_ends(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.sends = False
    transfer = await world.fetch(file)
    await world.until(lambda: world.edge.files.downloads)
    data = {"file_id": file.file_id, "code": "not_a_member", "error": "no longer a member"}
    world.edge.connections[0].event("file_cancel", data)
    await world.ended(transfer)
    assert (transfer.phase, transfer.reason) == (Phase.FAILED, "no longer a member")
    assert world.names() == []


async def test_a_server_that_sends_what_was_not_asked_for(world: World) -> None:
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.sends = False
    transfer = await world.fetch(file)
    await world.until(lambda: world.edge.files.downloads)
    [sending] = world.edge.files.downloads
    sending.sent = 65_536
    world.edge.files.sends = True
    world.edge.files._pump(sending)
    await world.ended(transfer)
    assert transfer.phase is Phase.FAILED
    assert "broke the protocol" in transfer.reason
    assert world.names() == []


@pytest.mark.parametrize("is_upload", [True, False])
async def test_cancelled_is_gone(world: World, is_upload: bool) -> None:
    world.edge.files.stores = world.edge.files.sends = False
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    transfer = await (world.send() if is_upload else world.fetch(file))
    await world.until(lambda: world.edge.files.received_bytes if is_upload else world.edge.files.downloads)
    await world.session.files.cancel(transfer)
    await world.session.files.cancel(transfer)
    assert transfer.phase is Phase.CANCELLED
    assert list(world.session.files) == []
    assert world.names() == []
    await world.until(lambda: world.edge.files.cancelled)
    assert world.files == [file]
    assert world.edge.files.downloads == []
    await world.again()
    assert world.of(FileResumed) == []


async def test_cancelled_while_the_offer_is_under_way(world: World) -> None:
    world.edge.files.stores = False
    held = []
    world.edge.before_answer = lambda _, kind: held.append(kind)
    transfer = await world.send()
    await world.until(lambda: "file_offer" in held)
    await world.session.files.cancel(transfer)
    await world.until(lambda: not world.files)
    assert transfer.phase is Phase.CANCELLED


async def test_cancelled_without_a_connection_is_told_at_the_next_login(world: World) -> None:
    world.edge.files.stores = False
    transfer = await world.send()
    await world.until(lambda: world.edge.files.received_bytes)
    world.edge.is_down = True
    world.edge.cut()
    await world.until(lambda: transfer.phase is Phase.WAITING)
    await world.session.files.cancel(transfer)
    assert list(world.session.files) == []
    assert len(world.files) == 1
    world.edge.is_down = False
    await world.again()
    await world.until(lambda: not world.files)
    assert world.of(FileResumed) == []


async def test_some_move_and_the_others_wait_their_turn(world: World) -> None:
    world.edge.files.stores = False
    transfers = []
    for number in range(AT_ONCE + 3):
        path = world.folder / f"{number}.bin"
        path.write_bytes(DATA + bytes([number]))
        transfers.append(await world.send(path))
    # Their hashes take real time, so the clock, of which no request may be late, stands still meanwhile.
    await world.until(lambda: sum(one.phase is Phase.MOVING for one in transfers) == AT_ONCE, advance_s=0.0)
    assert len(world.edge.sent("file_offer")) == AT_ONCE
    world.edge.files.stores = True
    world.edge.cut()
    for transfer in transfers:
        await world.ended(transfer)
    # Those that move are hashed side by side in threads: whichever is done first is offered first.
    assert sorted(file.data[-1] for file in world.files) == list(range(AT_ONCE + 3))
    await world.session.files.wait_until_ended()


async def test_too_many_and_too_early(world: World) -> None:
    world.edge.is_down = True
    world.edge.cut()
    await world.until(lambda: not world.edge.connections)
    for _ in range(TRANSFERS_MAX):
        await world.send()
    with pytest.raises(TooManyTransfersError):
        await world.send()
    other = Session(world.edge, clock=world.clock)
    with pytest.raises(NotReadyError):
        await other.files.send("r", world.path)
    with pytest.raises(NotReadyError):
        await other.files.list_files("r")


async def test_what_cannot_begin(world: World) -> None:
    for path in (world.folder / "missing", world.folder, Path("a\0b"), Path("a\udcff")):
        with pytest.raises(FileError):
            await world.send(path)
    file = world.edge.files.add(world.room, "bob", "plan.bin", DATA)
    world.edge.files.sends = False
    await world.fetch(file)
    with pytest.raises(FileError, match="already"):
        await world.fetch(file)
    with pytest.raises(FileError, match="no folder"):
        await world.session.files.fetch(FileInfo("ab" * 16, "x", 1, ""), world.folder / "missing")


async def test_a_file_larger_than_the_server_takes(world: World) -> None:
    world.edge.server_info["max_file_bytes"] = 1_000_000
    await world.again()
    transfer = await world.ended(await world.send())
    assert transfer.phase is Phase.FAILED
    assert "takes 977 KiB at most" in transfer.reason
    assert world.edge.sent("file_offer") == []


async def test_logging_out_keeps_what_is_unfinished(world: World) -> None:
    world.edge.files.stores = False
    await world.send()
    await world.until(lambda: world.edge.files.received_bytes)
    await world.session.logout()
    assert list(world.session.files) == []
    world.edge.files.stores = True
    await asyncio.sleep(0.05)
    await world.session.login("ada", "correct horse")
    await world.until(lambda: world.of(FileEnded))
    assert hashlib.sha256(world.files[0].data).hexdigest() == hashlib.sha256(DATA).hexdigest()


async def test_files_are_listed_in_pages(world: World) -> None:
    for number in range(3):
        world.edge.files.add(world.room, "bob", f"{number}", bytes([number]))
    first = await world.session.files.list_files(world.room.room_id, limit=2)
    assert [file.name for file in first.files] == ["2", "1"]
    second = await world.session.files.list_files(world.room.room_id, before=first.next_before, limit=2)
    assert ([file.name for file in second.files], second.next_before) == (["0"], None)
