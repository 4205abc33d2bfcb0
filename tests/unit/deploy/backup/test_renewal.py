"""What a restored copy must not go on saying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deploy.backup import renewal

if TYPE_CHECKING:
    pass


def test_a_new_epoch_is_never_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter(["same", "same", "other"])
    monkeypatch.setattr(renewal, "new_epoch", lambda _: next(made))
    assert renewal.another_than("same") == "other"
