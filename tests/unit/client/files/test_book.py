from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from client.address import Address
from client.files.book import BookFile, NoBook, books, default_folder
from client.files.errors import FileError
from client.files.transfer import Direction, Entry

UP = Entry(direction=Direction.UP, name="plan.pdf", path="/nowhere/ada/plan.pdf", room_id="r1", transfer_id="ab" * 16)
DOWN = Entry(
    direction=Direction.DOWN, name="ü.pdf", path="/nowhere/ada", file_id="cd" * 16, size=5, part=".parley-x.part"
)


def test_what_is_kept_is_there_in_the_next_run(tmp_path: Path) -> None:
    book = BookFile(tmp_path / "b.json")
    assert book.entries() == []
    book.keep([UP, DOWN])
    book.close()
    book.keep([])  # too late
    again = BookFile(tmp_path / "b.json")
    assert again.entries() == [UP, DOWN]
    again.keep([DOWN])
    assert again.entries() == [DOWN]
    assert stat.S_IMODE((tmp_path / "b.json").stat().st_mode) == 0o600
    again.close()
    again.close()


def test_one_client_at_a_time(tmp_path: Path) -> None:
    open_book = books(tmp_path / "new" / "folder", Address("localhost", 1))
    first = open_book("ada")
    assert first is not None
    assert open_book("ada") is None
    assert open_book("bob") is not None
    first.close()
    assert open_book("ada") is not None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"version":2,"transfers":[{}]}', b'{"version":1}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.json").write_bytes(content)
    assert BookFile(tmp_path / "b.json").entries() == []


def test_entries_that_are_none_are_passed_over(tmp_path: Path) -> None:
    book = BookFile(tmp_path / "b.json")
    book.keep([UP, DOWN])
    page = json.loads((tmp_path / "b.json").read_text())
    page["transfers"][1:1] = [{}, 5, {"direction": "sideways", "name": "x", "path": "y"}]
    (tmp_path / "b.json").write_text(json.dumps(page))
    assert book.entries() == [UP, DOWN]


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    book = BookFile(tmp_path / "b.json")
    book.keep([UP])
    (tmp_path / "b.new").mkdir()
    with pytest.raises(FileError, match="cannot be kept"):
        book.keep([])
    assert book.entries() == [UP]


def test_without_a_folder_there_is_no_book(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert books(tmp_path / "file", Address("localhost", 1))("ada") is None
    NoBook().keep([UP])
    assert NoBook().entries() == []


def test_books_are_where_state_belongs() -> None:
    assert default_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/parley/transfers")
    assert default_folder({"HOME": "/nowhere/ada"}) == Path("/nowhere/ada/.local/state/parley/transfers")
