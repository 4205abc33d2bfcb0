from __future__ import annotations

import pytest

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.stand_in import ask_in_turn

GONE = ParleyError(ErrorCode.UNAVAILABLE, "gone")


class Instances:
    """Instances that answer with their name, or fail."""

    def __init__(self, **failures: ParleyError) -> None:
        self.clock = FakeClock()
        self.failures = failures
        self.asked: list[str] = []
        self.takes_s = 0.0

    async def call(self, target: str) -> str:
        self.asked.append(target)
        await self.clock.advance(self.takes_s)
        if target in self.failures:
            raise self.failures[target]
        return target

    async def ask(self, *candidates: str) -> str:
        return await ask_in_turn(candidates, self.call, self.clock)


async def test_the_first_one_that_is_there_answers() -> None:
    assert await Instances().ask("a", "b") == "a"
    assert await Instances(a=GONE).ask("a", "b", "c") == "b"
    assert await Instances().ask("a") == "a"


async def test_two_are_asked_and_no_more() -> None:
    instances = Instances(a=GONE, b=GONE)
    with pytest.raises(ParleyError, match="gone"):
        await instances.ask("a", "b", "c")
    assert instances.asked == ["a", "b"]


async def test_a_refusal_and_a_failure_that_took_long_are_the_answer() -> None:
    refusing = Instances(a=ParleyError(ErrorCode.NOT_A_MEMBER, "no"))
    with pytest.raises(ParleyError, match="no"):
        await refusing.ask("a", "b")
    slow = Instances(a=GONE)
    slow.takes_s = 2.0
    with pytest.raises(ParleyError, match="gone"):
        await slow.ask("a", "b")
    assert refusing.asked == slow.asked == ["a"]
