from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from deploy.local import assertion_keys
from services.common import assertions
from services.common.assertions import Claims, Signer, Verifier
from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path


class World:
    """Auth's signer and somebody's verifier over one directory of keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = assertion_keys.ensure(directory)
        self.clock = FakeClock()
        self.signer = Signer(self.files.private, self.clock)
        self.verifier = Verifier(self.files.public, self.clock)

    def claims(self, **changes: object) -> Claims:
        now = self.clock.now()
        claims = Claims(
            session_id="s1",
            user_id="u1",
            username="amy",
            edge="edge-1",
            boot_id="b1",
            issued_at=now,
            expires_at=now + 900,
        )
        return msgspec.structs.replace(claims, **changes)

    def refusal(self, assertion: bytes) -> str:
        with pytest.raises(ParleyError) as caught:
            self.verifier.verify(assertion)
        assert caught.value.code is ErrorCode.NOT_AUTHENTICATED
        return caught.value.message.removeprefix("the session's assertion ")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_was_signed_is_what_is_read(world: World) -> None:
    claims = world.claims(username="Ünïcode")
    assertion = world.signer.sign(claims)
    assert len(assertion) < 300
    assert world.verifier.verify(assertion) == claims
    assert world.verifier.verify(assertion) is world.verifier.verify(assertion)  # checked once, then known


def test_it_expires_with_a_little_room_for_clocks_that_differ(world: World) -> None:
    assertion = world.signer.sign(world.claims())
    world.clock.advance(900 + assertions.SKEW_S)
    world.verifier.verify(assertion)
    world.clock.advance(0.1)
    assert world.refusal(assertion) == "has expired"
    world.verifier.verify(assertion, may_be_expired=True)


def test_one_from_the_future_is_good(world: World) -> None:
    """Auth's clock may have been set back since; nobody but auth can have made it."""
    now = world.clock.now()
    world.verifier.verify(world.signer.sign(world.claims(issued_at=now + 3_600, expires_at=now + 4_500)))


def test_one_of_another_key_is_refused(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    assert world.refusal(other.signer.sign(other.claims())) == "is signed with an unknown key"


def test_one_that_names_a_key_that_did_not_sign_it_is_forged(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    good, foreign = world.signer.sign(world.claims()), other.signer.sign(other.claims())
    assert world.refusal(good[:9] + foreign[9:]) == "is forged"


def test_a_plain_signature_of_the_claims_is_forged(world: World) -> None:
    """Signatures are over a constant too, so that none made for something else can be used here."""
    key = assertions.parse_private_key(world.files.private.read_bytes())
    payload = msgspec.json.encode(world.claims())
    head = b"\x01" + assertions.key_id(key.public_key())
    assert world.refusal(head + key.sign(payload) + payload) == "is forged"


def test_signed_nonsense_is_refused(world: World) -> None:
    key = assertions.parse_private_key(world.files.private.read_bytes())
    head = b"\x01" + assertions.key_id(key.public_key())
    for payload in (b"{}", b"[" * 900, b'{"session_id": "\xff"}', msgspec.json.encode({"session_id": "s"})):
        assertion = head + key.sign(b"parley session assertion 1\0" + payload) + payload
        assert world.refusal(assertion) == "claims something else"


@given(st.data())
def test_any_change_of_a_byte_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    world = _shared_world(tmp_path_factory)
    assertion = bytearray(world.signer.sign(world.claims()))
    at = data.draw(st.integers(0, len(assertion) - 1))
    assertion[at] ^= data.draw(st.integers(1, 255))
    assert world.refusal(bytes(assertion))


@given(st.binary(max_size=1_200))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    world = _shared_world(tmp_path_factory)
    assert world.refusal(garbage)
    assert world.refusal(b"\x01" + garbage)


_worlds: list[World] = []


def _shared_world(factory: pytest.TempPathFactory) -> World:
    if not _worlds:
        _worlds.append(World(factory.mktemp("keys")))
    return _worlds[0]


def test_a_key_is_renewed_without_a_moment_in_which_one_is_refused(world: World) -> None:
    before = world.signer.sign(world.claims())
    successor = assertion_keys.trust_successor(world.directory)
    world.clock.advance(2)
    world.verifier.verify(world.signer.sign(world.claims()))
    assertion_keys.use(world.directory, successor)
    world.clock.advance(2)
    after = world.signer.sign(world.claims())
    assert after[:9] != before[:9]
    world.verifier.verify(after)
    world.verifier.verify(before)
    assert assertion_keys.retire(world.directory) == 1
    world.clock.advance(2)
    assert world.refusal(before) == "is signed with an unknown key"  # although it was known to be good
    world.verifier.verify(after)


def test_a_key_that_is_new_a_moment_ago_is_looked_for_at_once(world: World) -> None:
    successor = assertion_keys.trust_successor(world.directory)
    assertion_keys.use(world.directory, successor)
    signer = Signer(world.files.private, world.clock)
    world.verifier.verify(signer.sign(world.claims()))


def test_keys_that_cannot_be_used_leave_those_from_before(world: World) -> None:
    good = world.files.public.read_bytes()
    world.files.public.write_bytes(good[:40])
    world.files.private.write_text("nonsense")
    world.clock.advance(2)
    with capture_logs() as logs:
        for _ in range(3):
            world.verifier.verify(world.signer.sign(world.claims()))
            world.clock.advance(2)
    assert [line["event"] for line in logs] == ["keys cannot be used: those from before stay in use"] * 2
    world.files.public.write_bytes(good)
    world.clock.advance(2)
    world.verifier.verify(world.signer.sign(world.claims()))


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_start_without_good_keys_is_refused(world: World, content: str) -> None:
    world.files.public.write_text(content)
    with pytest.raises(ValueError, match=str(world.files.public)):
        Verifier(world.files.public, world.clock)
    world.files.private.write_text(content)
    with pytest.raises(ValueError, match=str(world.files.private)):
        Signer(world.files.private, world.clock)
    world.files.private.unlink()
    with pytest.raises(OSError, match="No such file"):
        Signer(world.files.private, world.clock)


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assertions, "KNOWN_MAX", 10)
    for number in range(30):
        world.verifier.verify(world.signer.sign(world.claims(session_id=f"s{number}")))
    assert len(world.verifier._known) == 10


def test_the_private_key_is_its_owners_alone(world: World) -> None:
    assert world.files.private.stat().st_mode & 0o777 == 0o600
    before = world.files.private.read_bytes()
    assert assertion_keys.ensure(world.directory) == world.files
    assert world.files.private.read_bytes() == before
