from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.served_edge import ServedEdge


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedEdge]:
    """A fake edge behind real TLS, with two accounts."""
    served = ServedEdge(tmp_path)
    served.edge.accounts = {"ada": "correct horse", "bob": "battery staple"}
    with served.running():
        yield served
