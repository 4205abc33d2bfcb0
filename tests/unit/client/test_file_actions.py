from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client import commands
from client.files.transfer import Phase
from services.common.wire.codes import ErrorCode
from tests.helpers.fake_edge import FakeRoom
from tests.unit.client.test_chat import Table

DATA = os.urandom(200_000)


class FileTable(Table):
    """A chat in a room, with a folder."""

    room: FakeRoom
    folder: Path

    async def finished(self) -> list[str]:
        """What was shown since, when nothing moves any more."""
        before = len(self.paper.lines)
        await self.until(lambda: not list(self.session.files), advance_s=0.1, patience=20_000)
        return self.paper.lines[before:]


@pytest.fixture
async def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileTable]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    table = FileTable()
    table.folder = tmp_path
    table.chat.downloads = tmp_path / "Downloads"
    table.room = table.edge.add_room("tea", "ada", "bob")
    await table.session.start()
    await table.type("/login ada 'correct horse'")
    yield table
    await table.session.close()


async def test_a_file_is_sent_and_shown(table: FileTable) -> None:
    (table.folder / "my plan.pdf").write_bytes(DATA)
    await table.chat.handle_line("/file my plan.pdf")
    assert table.paper.lines[-1] == "[SYSTEM] Sending my plan.pdf (195 KiB) to #tea: number 1; /cancel 1 stops it."
    shown = await table.finished()
    assert any(line.endswith("ada: [file my plan.pdf, 195 KiB: /get 00000001]") for line in shown)
    assert shown[-1] == "[SUCCESS] my plan.pdf (195 KiB) is sent."
    [file] = table.edge.files.files.values()
    assert bytes(file.data) == DATA


@pytest.mark.parametrize("wanted", ["00000001", "0000", "plan.pdf", "0" * 7 + "1" + "0" * 24])
async def test_a_file_is_fetched(table: FileTable, wanted: str) -> None:
    table.edge.files.add(table.room, "bob", "plan.pdf", DATA)
    await table.type()
    await table.chat.handle_line(f"/get {wanted}")
    shown = await table.finished()
    assert shown[-1] == f"[SUCCESS] plan.pdf (195 KiB) is saved as {table.folder}/Downloads/plan.pdf"
    assert (table.folder / "Downloads" / "plan.pdf").read_bytes() == DATA


async def test_where_it_is_saved(table: FileTable) -> None:
    table.edge.files.add(table.room, "bob", "../plan.pdf", DATA)
    (table.folder / "there").mkdir()
    (table.folder / "taken").write_bytes(b"mine")
    (table.folder / "link").symlink_to(table.folder / "nowhere")
    for typed in ("there", "there/", "there/own name.pdf"):
        await table.chat.handle_line(f"/get 0000 {typed}")
        await table.finished()
    names = sorted(path.name for path in (table.folder / "there").iterdir())
    assert names == ["own name.pdf", "plan (1).pdf", "plan.pdf"]
    for typed in ("taken", "link"):
        [error, _] = await table.type(f"/get 0000 {typed}")
        assert "is there already, and nothing is overwritten" in error
    [error] = await table.type("/get 0000 missing/x")
    assert "There is no folder" in error
    assert "255 bytes" in (await table.type(f"/get 0000 {'x' * 256}"))[0]
    assert (table.folder / "taken").read_bytes() == b"mine"
    assert not (table.folder / "nowhere").exists()


async def test_files_are_listed_with_what_is_under_way(table: FileTable) -> None:
    [line] = await table.type("/files")
    assert "No file was sent to #tea yet" in line
    table.edge.files.add(table.room, "bob", "plan\x1b[2J.pdf", DATA)
    table.edge.files.sends = False
    await table.type("/get 0000")
    await table.until(lambda: table.edge.files.downloads, patience=20_000)
    head, row, moving = await table.type("/files")
    assert head.split() == ["ID", "NAME", "SIZE", "FROM", "SENT"]
    assert row.split()[:5] == ["00000001", "plan.pdf", "195", "KiB", "bob"]
    assert moving.startswith("1 ↓ plan.pdf")


async def test_cancel_needs_a_number_only_where_there_are_several(table: FileTable) -> None:
    [error, _] = await table.type("/cancel")
    assert "Nothing is being sent or fetched" in error
    table.edge.files.sends = False
    for number in range(3):
        table.edge.files.add(table.room, "bob", f"{number}.bin", DATA)
        await table.type(f"/get {number}.bin")
    [error, _] = await table.type("/cancel")
    assert "1 (0.bin), 2 (1.bin), 3 (2.bin)" in error
    assert "no transfer '7'" in (await table.type("/cancel 7"))[0]
    await table.chat.handle_line("/cancel 2")
    assert table.paper.lines[-1] == "[SYSTEM] 1.bin is cancelled. Nothing is left of it."
    await table.chat.handle_line("/cancel 2.bin")
    assert [transfer.number for transfer in table.session.files] == [1]
    await table.chat.handle_line("/cancel")
    assert list((table.folder / "Downloads").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/file", "Which file?"),
        ("/file missing.txt", "There is no file"),
        ("/file .", "is a folder"),
        ("/get", "Which file?"),
        ("/get nothing.pdf", "No file 'nothing.pdf' is known here"),
        ("/files nowhere", "You are not in a room"),
        ("/cancel 5", "Nothing is being sent"),
    ],
)
async def test_what_cannot_be_done_is_told(table: FileTable, line: str, said: str) -> None:
    shown = await table.type(line)
    await table.until(lambda: any(said in one for one in table.paper.lines))
    assert table.chat.error_count == 1, shown


async def test_an_id_that_several_files_have_needs_more_of_it(table: FileTable) -> None:
    for number in range(17):
        table.edge.files.add(table.room, "bob", f"{number}.bin", b"x")
    await table.type()
    [error, _] = (await table.type("/get 0000"))[-2:]
    assert "may be any of" in error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ErrorCode.QUOTA_EXCEEDED, "refused: quota_exceeded"),
        (ErrorCode.NOT_A_MEMBER, "you are not a member of the room"),
        (ErrorCode.HASH_MISMATCH, "it was changed while it was being sent"),
    ],
)
async def test_every_refusal_is_told_in_words(table: FileTable, code: ErrorCode, said: str) -> None:
    (table.folder / "plan.pdf").write_bytes(DATA)
    table.edge.refuse("file_offer", code)
    await table.chat.handle_line("/file plan.pdf")
    assert (await table.finished())[-1] == f"[ERROR] plan.pdf was not sent: {said}."
    assert table.chat.error_count == 1


async def test_waiting_is_told_once_for_a_reason(table: FileTable) -> None:
    (table.folder / "plan.pdf").write_bytes(DATA)
    table.edge.refuse("file_offer", ErrorCode.UNAVAILABLE, times=3)
    await table.chat.handle_line("/file plan.pdf")
    shown = await table.finished()
    assert [line for line in shown if "waits" in line] == ["[SYSTEM] plan.pdf waits: refused: unavailable"]


async def test_progress_is_told_every_so_often_where_it_is_not_in_sight(table: FileTable) -> None:
    table.chat._tells_progress_s = 5.0
    table.edge.files.sends_bytes_max = 65_536
    table.edge.files.add(table.room, "bob", "plan.pdf", DATA)
    await table.type("/get plan.pdf")
    [transfer] = table.session.files
    await table.until(lambda: transfer.done_bytes, patience=20_000)
    await table.clock.advance(6.0)
    transfer.moved(table.clock.monotonic(), 100_000)
    table.session.files._changed(transfer)
    assert table.paper.lines[-1].startswith("[SYSTEM] 1 ↓ plan.pdf  ██████████░░░░░░░░░░  50 %")
    assert transfer.phase is Phase.MOVING


async def test_paths_ids_and_numbers_are_completed(table: FileTable) -> None:
    (table.folder / "my plan.pdf").write_bytes(DATA)
    (table.folder / "photos").mkdir()
    table.edge.files.add(table.room, "bob", "their plan.pdf", DATA)
    table.edge.files.sends = False
    await table.type("/get 0000")

    def complete(line: str) -> list[str]:
        return [line[: len(line) - count] + text for text, count in commands.completions(table.chat, line)]

    assert complete("/file m") == ["/file my plan.pdf"]
    assert complete("/file my p") == ["/file my plan.pdf"]
    assert complete('/file "my p') == ['/file "my plan.pdf"']
    assert complete("/file ph") == ["/file photos/"]
    assert "/get 00000001" in complete("/get 0")
    assert complete("/get th") == ['/get "their plan.pdf"']
    assert complete("/get 00000001 ph") == ["/get 00000001 photos/"]
    assert "/get 00000001 photos/" in complete("/get 00000001 ")
    assert complete("/cancel ") == ["/cancel 1"]
    assert complete("/fi") == ["/file ", "/files "]


async def test_logging_out_says_what_goes_on_later(table: FileTable) -> None:
    table.edge.files.sends = False
    table.edge.files.add(table.room, "bob", "plan.pdf", DATA)
    await table.type("/get plan.pdf")
    await table.chat.handle_line("/logout")
    assert table.paper.lines[-1] == "[SYSTEM] What is not sent or fetched yet (1) goes on at the next login."
