"""One compose stack for all tests of this folder, taken down with everything that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compose import engine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engine.Compose]:
    assert engine.is_there(), "needs a container engine: docker info fails"
    missing = [image for image in engine.IMAGES if not engine.has_image(image)]
    assert not missing, f"no registry has {missing}, and they are not here: tests/compose/images.sh makes stand-ins"
    compose = engine.Compose(tmp_path_factory.mktemp("compose"))
    try:
        compose.said = compose.up()
        yield compose
    finally:
        compose.down()
