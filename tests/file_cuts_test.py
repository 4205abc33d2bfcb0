"""A file goes from one client to another over links that are cut again and again: `python tests/file_cuts_test.py`.

Two `parley chat --plain` send and fetch through proxies that break all connections at given numbers of bytes. The exit
status is 0 only when the file arrived with its hash, less than a hundredth of it went over the links twice (everything
else that they carry included), and neither client nor edge took 64 MiB more memory than before.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it can be called by its path

from tests.helpers.cutting_proxy import CuttingProxy  # noqa: E402
from tests.helpers.stack import FAST_CONFIG, Stack, parley, running_stack  # noqa: E402

PASSWORD = "correct horse battery"
MIB = 1_048_576
MORE_TWICE_MAX = 0.01
MORE_MEMORY_MAX = 64 * MIB
LINE_S = 60.0
BLOCK = 1_000_000


@dataclass
class Figures:
    """What one run showed."""

    size: int
    cuts: int = 0
    is_same: bool = False
    up_s: float = 0.0
    down_s: float = 0.0
    up_bytes: int = 0
    down_bytes: int = 0
    sender_more: int = 0
    receiver_more: int = 0
    edge_more: int = 0

    @property
    def is_good(self) -> bool:
        """Whether everything that was promised holds."""
        more = max(self.sender_more, self.receiver_more, self.edge_more)
        return self.is_same and self.twice < MORE_TWICE_MAX and more < MORE_MEMORY_MAX

    @property
    def twice(self) -> float:
        """What the links carried beyond the file, as a share of it; the larger one of both directions."""
        return max(self.up_bytes, self.down_bytes) / self.size - 1

    def __str__(self) -> str:
        up, down = (count / self.size - 1 for count in (self.up_bytes, self.down_bytes))
        rows = {
            "file": f"{self.size / 1e6:.0f} MB, {'the same' if self.is_same else 'NOT the same'} at the other end",
            "cuts": f"{self.cuts}",
            "up / down": f"{self.up_s:.1f} / {self.down_s:.1f} s",
            "over the links": f"{up:.3%} / {down:.3%} more than the file",
            "memory, more": f"sender {self.sender_more / MIB:.1f}, receiver {self.receiver_more / MIB:.1f}, "
            f"edge {self.edge_more / MIB:.1f} MiB",
        }
        return "\n".join(f"{name:<18} {text}" for name, text in rows.items())


def _memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field}")


def _forget_peak(pid: int) -> None:
    """The peak of its memory starts from here: proc(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _make_home(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "password").write_text(PASSWORD)


class Person:
    """A `parley chat --plain` behind a proxy."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.before = 0

    @classmethod
    async def start(cls, stack: Stack, folder: Path, port: int, *arguments: str) -> Person:
        _make_home(folder)
        command = parley(
            "chat", f"localhost:{port}", "--ca", stack.ca, "--plain", "--password-file", str(folder / "password"),
            "--register", *arguments,
        )  # fmt: skip
        environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        environment.pop("XDG_STATE_HOME", None)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        return cls(process)

    def enter(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def until(self, text: str, timeout_s: float = LINE_S) -> str:
        """Reads lines until one has the text."""
        assert self.process.stdout is not None
        seen = []
        async with asyncio.timeout(timeout_s):
            while line := (await self.process.stdout.readline()).decode():
                seen.append(line)
                if text in line:
                    return line
        raise AssertionError(f"it never said {text!r}: {seen[-10:]}")

    def remember(self) -> None:
        """The memory that it takes from now on is counted."""
        _forget_peak(self.process.pid)
        self.before = _memory(self.process.pid, "VmRSS")

    def more(self) -> int:
        """How much more memory than then it took at its peak."""
        return _memory(self.process.pid, "VmHWM") - self.before

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(LINE_S):
            await self.process.wait()


def _make_file(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        left = size
        while left:
            block = os.urandom(min(BLOCK, left))
            file.write(block)
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def run(stack: Stack, folder: Path, size: int, cuts: int, *, patience_s: float) -> Figures:
    """One file up and down through `cuts` cuts, half of them in each direction."""
    figures = Figures(size)
    source = folder / "big.bin"
    sha256 = await asyncio.to_thread(_make_file, source, size)
    up = [size * (number + 1) // (cuts // 2 + 1) for number in range(cuts // 2)]
    edge = stack.pids()["edge-1"]
    async with CuttingProxy(stack.port, up_at=up) as above, CuttingProxy(stack.port, down_at=up) as below:
        sender = await Person.start(stack, folder / "a", above.port, "--user", "sender")
        receiver = await Person.start(stack, folder / "b", below.port, "--user", "receiver")
        try:
            sender.enter("/create big")
            await sender.until("is yours, and you are in it")
            receiver.enter("/join big")
            await receiver.until("You are in #big")
            for person in (sender, receiver):
                person.remember()
            _forget_peak(edge)
            edge_before = _memory(edge, "VmRSS")
            began, up_before = time.monotonic(), above.up_bytes
            sender.enter(f"/file {source}")
            await sender.until("is sent", patience_s)
            figures.up_s, figures.up_bytes = time.monotonic() - began, above.up_bytes - up_before
            began, down_before = time.monotonic(), below.down_bytes
            receiver.enter(f"/get big.bin {folder}/copy.bin")
            await receiver.until("is saved as", patience_s)
            figures.down_s, figures.down_bytes = time.monotonic() - began, below.down_bytes - down_before
            figures.sender_more, figures.receiver_more = sender.more(), receiver.more()
            figures.edge_more = _memory(edge, "VmHWM") - edge_before
            figures.cuts = above.cuts + below.cuts
            await sender.end()
            await receiver.end()
        finally:
            for person in (sender, receiver):
                if person.process.returncode is None:
                    person.process.kill()
                    await person.process.wait()
    figures.is_same = await asyncio.to_thread(_hash, folder / "copy.bin") == sha256
    return figures


def main() -> int:
    """Runs with a stack of its own; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--patience", type=float, default=600.0, metavar="S", help="for each direction")
    given = parser.parse_args()
    size = given.megabytes * 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="parley-cuts-"))
    config = f"{FAST_CONFIG}[rooms]\nfile_bytes_max = {size}\nfile_bytes_per_user_max = {2 * size}\n"
    try:
        with running_stack(config=config) as stack:
            figures = asyncio.run(run(stack, folder, size, given.cuts, patience_s=given.patience))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(figures)
    return 0 if figures.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
