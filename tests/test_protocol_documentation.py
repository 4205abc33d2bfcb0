"""docs/protocol.md says what the wire does: its examples are run, its tables are compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import parse, parse_server
from services.common.wire.events import VERSION_1_TYPES
from services.common.wire.requests import REQUESTS, parse_request

PAGE = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")
CLIENT = re.findall(r"^C: (.*)$", PAGE, re.MULTILINE)
SERVER = re.findall(r"^S: (.*)$", PAGE, re.MULTILINE)


def section(title: str) -> str:
    return re.split(r"^#{2,3} ", PAGE.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("line", CLIENT)
def test_what_clients_send(line: str) -> None:
    envelope = parse(line.encode())
    assert type(parse_request(envelope)) is REQUESTS[envelope.type]


@pytest.mark.parametrize("line", SERVER)
def test_what_the_server_sends(line: str) -> None:
    frame = parse_server(line.encode())
    assert frame.data.get("code") is None or ErrorCode(frame.data["code"])


def test_there_are_examples() -> None:
    assert len(CLIENT) >= 8
    assert len(SERVER) >= 12


def test_every_request_is_there() -> None:
    for type_ in REQUESTS:
        assert f"`{type_}`" in PAGE


def test_every_code_is_explained() -> None:
    assert set(
        re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\|([^|]*)\|", section("Errors"), re.MULTILINE)))
    ) == set(ErrorCode)


def test_every_type_of_version_1_is_there() -> None:
    for type_ in VERSION_1_TYPES:
        assert f"`{type_}`" in section("Version 1")


@pytest.mark.parametrize(
    "number",
    [limits.MAX_JSON_BYTES, limits.MAX_CHUNK_FRAME_BYTES, limits.MAX_TEXT_CHARS, limits.RESUME_REPLAY_MAX,
     limits.MAX_V1_CHUNK_CHARS],
)  # fmt: skip
def test_the_numbers_are_those_of_the_code(number: int) -> None:
    assert f"{number:,}" in PAGE


def test_links_lead_somewhere() -> None:
    titles = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= titles
