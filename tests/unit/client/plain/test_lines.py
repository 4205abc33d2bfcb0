from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.plain.lines import LINE_BYTES_MAX, LineSplitter, read_lines


def split(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + list(splitter.end())


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_the_pieces_do_not_matter(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert split(*pieces) == split(data)


def test_line_ends_and_encodings() -> None:
    assert split("a\r\nbä\n\nc".encode()) == ["a", "bä", "", "c"]
    assert split(b"\xff\n") == ["\ufffd"]
    assert split(b"") == []


def test_a_line_without_end_takes_bounded_memory() -> None:
    splitter = LineSplitter()
    for _ in range(100):
        assert list(splitter.feed(b"x" * 65_536)) == []
    assert len(splitter._held) == LINE_BYTES_MAX + 1
    assert [len(line) for line in splitter.feed(b"\nnext\n")] == [LINE_BYTES_MAX + 1, 4]


async def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo")
    os.close(writing)
    assert [line async for line in read_lines(reading)] == ["one", "two"]
    os.close(reading)


async def test_a_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("".join(f"{n}\n" for n in range(1000)))
    with path.open() as file:
        assert [line async for line in read_lines(file.fileno())] == [str(n) for n in range(1000)]


async def test_a_closed_descriptor_is_an_empty_input(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)  # a directory cannot be read
    with pytest.raises(OSError, match="directory"):
        os.read(descriptor, 1)
    assert [line async for line in read_lines(descriptor)] == []
    os.close(descriptor)
