"""A stack that all tests of a run share, private ones for tests that break things, and people to connect to them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.helpers.chat_program import Terminals, environment
from tests.helpers.people import People
from tests.helpers.stack import ROOT, Stack, parley, running_stack
from tests.helpers.terminal_program import TerminalProgram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Shared: a test may not kill or slow anything down here, and must expect other people's rooms."""
    with running_stack() as running:
        yield running


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """A running stack that the test may kill."""
    with running_stack() as running:
        yield running


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Stacks that the test starts itself; ended afterwards."""
    made: list[Stack] = []

    def make(*, home: Path | None = None, **options: object) -> Stack:
        made.append(Stack(home or tmp_path / f"home{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
async def people(stack: Stack) -> AsyncIterator[People]:
    """Connects people to the shared stack; they hang up at the end of the test."""
    async with AsyncExitStack() as exits:
        yield People(stack, exits)


@pytest.fixture
async def own_people(own_stack: Stack) -> AsyncIterator[People]:
    """Connects people to the test's own stack."""
    async with AsyncExitStack() as exits:
        yield People(own_stack, exits)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminals]:
    """Starts `parley chat` in a pseudo-terminal, in the home of a stack."""
    opened: list[TerminalProgram] = []

    def start(stack: Stack, *arguments: str) -> TerminalProgram:
        program = TerminalProgram(
            parley("chat", "--home", str(stack.home), *arguments), env=environment(tmp_path), cwd=str(ROOT)
        )
        opened.append(program)
        return program

    yield start
    for program in opened:
        program.close()
