from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from services.common.log_file import LogFile

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "server.log"
    first, second = LogFile(path), LogFile(path)
    first.write(b"one\n")
    second.write(b"two\n")
    first.write(b"three\n")
    first.close()
    second.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    log = LogFile(path, bytes_max=4, old_files=2)
    for line in (b"1111\n", b"2222\n", b"3333\n", b"4\n"):
        log.write(line)
    log.close()
    assert path.read_bytes() == b"4\n"
    assert (tmp_path / "server.log.1").read_bytes() == b"3333\n"
    assert (tmp_path / "server.log.2").read_bytes() == b"2222\n"
    assert not (tmp_path / "server.log.3").exists()


def test_a_file_that_another_process_put_aside_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    log = LogFile(path)
    log.write(b"one\n")
    path.rename(tmp_path / "moved")
    log.write(b"two\n")
    log.close()
    assert path.read_bytes() == b"two\n"


def test_what_cannot_be_written_is_lost_and_what_can_be_again_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.write_bytes(b"a file where the directory should be")
    log = LogFile(directory / "server.log")
    log.write(b"lost\n")
    directory.unlink()
    log.write(b"kept\n")
    log.close()
    assert (directory / "server.log").read_bytes() == b"kept\n"


def write_lines(path: Path, letter: str) -> None:
    log = LogFile(path, bytes_max=20_000, old_files=100)
    for number in range(500):
        log.write(f"{letter * 80}{number:04}\n".encode())


def test_several_processes_lose_and_mix_no_line_when_they_rotate(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=write_lines, args=(path, letter)) for letter in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = [
        line for file in tmp_path.glob("server.log*") if file.suffix != ".lock" for line in file.read_text().split()
    ]
    assert sorted(lines) == sorted(f"{letter * 80}{number:04}" for letter in "abc" for number in range(500))
    assert len(list(tmp_path.iterdir())) > 3
