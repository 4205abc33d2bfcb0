from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from deploy.local.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path


def test_makes_the_documented_directories(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    layout.create()
    layout.create()
    made = {str(p.relative_to(layout.home)) for p in layout.home.rglob("*")}
    assert made == {"certificates", "data", "logs", "monitoring", "monitoring/graphs", "run"}
    for private in (layout.certificates, layout.data, layout.logs, layout.run):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_removes_what_an_earlier_stack_left_but_not_the_lock(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    for path in (layout.lock_file, layout.stack_file, layout.ready_file("edge-1")):
        path.write_text("x")
    layout.remove_stale()
    assert list(layout.run.iterdir()) == [layout.lock_file]
