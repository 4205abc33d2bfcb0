"""What the measuring programs make of what they measured; that they measure is shown by running them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.chaos import outages, revocations
from tests.chaos.outages import Person, p99

if TYPE_CHECKING:
    from tests.helpers.raw_client import RawClient


class Log:
    """A client that is shown a log, in pages."""

    def __init__(self, *texts: str, page: int = 2) -> None:
        self._log = [{"seq": seq, "text": text} for seq, text in enumerate(texts, 1)]
        self._page = page

    async def expect(self, _: str, data: dict[str, Any], **__: Any) -> dict[str, Any]:
        rest = self._log[data["after"] :]
        return {"messages": rest[: self._page], "more": len(rest) > self._page}


@pytest.mark.parametrize(
    ("log", "is_all"),
    [
        (("a", "b", "c"), True),
        (("a", "b"), False),  # one is lost
        (("a", "c", "b"), False),
        (("a", "b", "b", "c"), False),
    ],
)
async def test_the_log_has_to_be_what_was_acknowledged(log: tuple[str, ...], is_all: bool) -> None:
    person = Person(cast("RawClient", Log(*log)), "room")
    person.acknowledged = [(1, "a"), (2, "b"), (3, "c")]
    assert await person.has_all() is is_all


def test_of_a_few_waits_the_longest_counts() -> None:
    assert p99([2.0]) == 2.0
    assert p99([float(number) for number in range(101)]) == 99.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--how", "freeze"],
        ["--how", "freeze", "--layout", "postgres", "--what", "edge"],
        ["--how", "thaw", "--what", "edge"],
    ],
)
def test_only_what_another_process_can_stand_in_for_is_frozen(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        outages.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("measured", "is_kept"),
    [
        ({("revoked", "there"): [0.1, 1.0], ("revoked", "killed"): [4.9]}, True),
        ({("revoked", "there"): [0.1, 1.1]}, False),
        ({("taken over", "there"): [0.1], ("taken over", "frozen"): [5.1]}, False),
        ({("logged out", "there"): [0.1, math.inf]}, False),
    ],
)
def test_one_that_is_late_misses_the_goal(
    measured: dict[tuple[str, str], list[float]], is_kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    place = revocations.Place(cast("Any", None), (1, 2), cast("Any", None), None, dict(measured))
    assert revocations.report(place) is is_kept
    printed = capsys.readouterr().out
    assert all(f"| {name} | {redis} | {len(took)} |" in printed for (name, redis), took in measured.items())
