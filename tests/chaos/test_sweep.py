"""Rooms dies at each of the writes and syncs that a send takes: nothing is lost, and nothing is doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.shim import control
from tests.chaos.sweep import Sweep, SweepError, summary
from tests.helpers.servers import find_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _compiler() -> None:
    find_program("cc")


@pytest.mark.timeout(240)  # each death is a process that starts
async def test_rooms_dies_at_every_call_of_a_send(tmp_path: Path) -> None:
    with control.Control(tmp_path) as faults:
        sweep = Sweep(tmp_path, faults)
        await sweep.found()
        deaths = await sweep.run("text")
    died = [death for death in deaths if death.has_died]
    assert len(died) == len(deaths) - 1, "the send before the last got through"
    assert len(died) >= 3, "at least a page, a commit and a sync"
    assert not died[0].stored, "before the first call there was nothing"
    assert died[-1].stored, "after the last sync it is there, whether or not that was told"
    assert "nothing was lost" in summary("text", deaths)
    # And what it says is looked at: a text that was acknowledged and is not there is a loss.
    place = died[0].places[0]
    sweep.acknowledged[place[0], "unheard of"] = (99, "of")
    with pytest.raises(SweepError, match="unheard of"):
        sweep.audit()
