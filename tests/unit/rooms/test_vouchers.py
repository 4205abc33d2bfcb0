from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from structlog.testing import capture_logs

from services.common.assertions import SKEW_S, Claims, Signer, Verifier
from services.common.clock import FakeClock
from services.common.config import ConfigError
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms import vouchers
from services.rooms.config import RoomsConfig
from services.rooms.messages import Publish
from services.rooms.presence import Session
from services.rooms.vouchers import Vouchers, open_vouchers
from tests.helpers import certificates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AMY = Session("s1", "u1", "amy", "b1")


class World:
    def __init__(self) -> None:
        keys = certificates.shared().assertion_keys
        self.clock = FakeClock()
        self.signer = Signer(keys.private, self.clock)
        self.vouchers = Vouchers(Verifier(keys.public, self.clock), self.clock)

    def assertion(self, session: Session = AMY, **changes: Any) -> bytes:
        now = self.clock.now()
        claims = Claims(
            session_id=session.session_id,
            user_id=session.user_id,
            username=session.username,
            edge="edge-1",
            boot_id=session.boot_id,
            issued_at=now,
            expires_at=now + 900,
        )
        return self.signer.sign(msgspec.structs.replace(claims, **changes))


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(ParleyError) as caught:
        work()
    assert caught.value.code is ErrorCode.NOT_AUTHENTICATED
    return caught.value.message.removeprefix("the session's assertion ")


def texts(*senders: tuple[str, str]) -> list[Publish]:
    return [Publish(n, "room", user_id, name, "text", f"k{n}") for n, (user_id, name) in enumerate(senders, 1)]


def test_a_session_is_believed_with_its_own_assertion_only() -> None:
    world = World()
    check = world.vouchers.check_session
    check(world.assertion(), AMY)
    assert refusal(lambda: check(b"", AMY)) == "is missing"
    assert refusal(lambda: check(world.assertion(), AMY._replace(boot_id="b2"))) == "belongs to another edge"
    others = [AMY._replace(session_id="s2"), AMY._replace(user_id="u2"), AMY._replace(username="bob")]
    assert [refusal(partial(check, world.assertion(), other)) for other in others] == ["is of somebody else"] * 3


def test_a_person_is_believed_with_an_assertion_of_theirs() -> None:
    world = World()
    check = world.vouchers.check_person
    check(world.assertion(), user_id="u1")
    check(world.assertion(), user_id="u1", username="amy")
    assert refusal(lambda: check(world.assertion(), user_id="u2")) == "is of somebody else"
    assert refusal(lambda: check(world.assertion(), user_id="u1", username="root")) == "is of somebody else"
    assert refusal(lambda: check(world.assertion(), user_id="")) == "is of somebody else"


def test_the_assertion_of_a_session_that_has_ended_is_not_used_again() -> None:
    world = World()
    assertion, fresh = world.assertion(), world.assertion(AMY._replace(session_id="s2"))
    world.vouchers.check_session(assertion, AMY)
    world.vouchers.close(["s1"])
    for work in (
        lambda: world.vouchers.check_session(assertion, AMY),
        lambda: world.vouchers.check_person(assertion, user_id="u1"),
        lambda: world.vouchers.speakers("b1").admit(assertion),
    ):
        assert refusal(work) == "is of a session that has ended"
    world.vouchers.check_person(fresh, user_id="u1")


def test_ended_sessions_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouchers, "CLOSED_MAX", 3)
    world = World()
    world.vouchers.close([f"s{number}" for number in range(5)])
    assert list(world.vouchers._closed) == ["s2", "s3", "s4"]


def test_a_stream_speaks_for_whom_it_has_brought_an_assertion() -> None:
    world = World()
    speakers = world.vouchers.speakers("b1")
    batch = texts(("u1", "amy"), ("u2", "bob"), ("u1", "amy"))
    assert speakers.refuse(batch) == batch
    speakers.admit(world.assertion())
    assert speakers.refuse(batch) == batch[1:2]
    speakers.admit(world.assertion(Session("s2", "u2", "bob", "b1")))
    assert speakers.refuse(batch) == []
    assert speakers.refuse(texts(("u1", "bob"))) != []  # nor under somebody else's name
    assert world.vouchers.speakers("b1").refuse(batch) == batch  # another stream of the same edge, or who claims it


def test_a_stream_takes_no_assertion_of_another_edge() -> None:
    world = World()
    assert refusal(lambda: world.vouchers.speakers("b2").admit(world.assertion())) == "belongs to another edge"


def test_what_was_accepted_goes_on_when_the_session_ends_and_stops_when_the_assertion_does() -> None:
    """A person may log out with texts on their way; nobody may speak for them for long."""
    world = World()
    speakers = world.vouchers.speakers("b1")
    speakers.admit(world.assertion())
    world.vouchers.close(["s1"])
    assert speakers.refuse(texts(("u1", "amy"))) == []
    world.clock.advance(900 + SKEW_S)
    assert speakers.refuse(texts(("u1", "amy"))) == []
    world.clock.advance(1)
    assert speakers.refuse(texts(("u1", "amy"))) != []


def test_a_renewed_assertion_goes_on_where_the_old_one_ends() -> None:
    world = World()
    speakers = world.vouchers.speakers("b1")
    speakers.admit(world.assertion())
    world.clock.advance(450)
    speakers.admit(world.assertion())
    world.clock.advance(460)
    assert speakers.refuse(texts(("u1", "amy"))) == []
    world.clock.advance(450)
    assert speakers.refuse(texts(("u1", "amy"))) != []


def test_one_stream_speaks_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouchers, "SPEAKERS_MAX", 2)
    world = World()
    speakers = world.vouchers.speakers("b1")
    for name in ("amy", "bob"):
        speakers.admit(world.assertion(Session(name, name, name, "b1")))
    third = world.assertion(Session("c", "c", "c", "b1"))
    assert refusal(lambda: speakers.admit(third)) == "is one too many on this stream"
    speakers.admit(world.assertion(Session("amy", "amy", "amy", "b1")))
    world.clock.advance(1_000)
    speakers.refuse(texts(("u1", "amy")))
    speakers.admit(world.assertion(Session("c", "c", "c", "b1")))


def test_refusals_are_logged_now_and_then() -> None:
    world = World()
    with capture_logs() as logs:
        for _ in range(100):
            world.vouchers.report("b1", "is forged")
            world.clock.advance(0.2)
    assert [line["event"] for line in logs] == ["edge refused"] * 2


def test_without_a_verifier_everybody_is_believed() -> None:
    unchecked = Vouchers(None, FakeClock())
    unchecked.check_session(b"", AMY)
    unchecked.check_person(b"", user_id="u1")
    unchecked.close(["s1"])
    speakers = unchecked.speakers("b1")
    speakers.admit(b"nonsense")
    assert speakers.refuse(texts(("u1", "amy"))) == []


def config(home: Path, **changes: Any) -> RoomsConfig:
    return certificates.shared().make(RoomsConfig, "rooms", home, **changes)


def test_assertions_are_checked_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    public = certificates.shared().assertion_keys.public
    assert open_vouchers(config(tmp_path, assertion_keys_file=public), FakeClock()).is_checking
    with pytest.raises(ConfigError, match=r"assertion_keys_file: .*assertion-public.pem.*`parley certs make`"):
        open_vouchers(config(tmp_path), FakeClock())
    with capture_logs() as logs:
        assert not open_vouchers(replace(config(tmp_path), check_assertions=False), FakeClock()).is_checking
    assert "an edge may act for anybody" in logs[0]["event"]
