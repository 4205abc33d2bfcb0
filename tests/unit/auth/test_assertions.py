from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.auth.assertions import open_assertions
from services.auth.config import AuthConfig
from services.auth.revocations import EdgeBoot
from services.common.assertions import Verifier
from services.common.clock import FakeClock
from services.common.config import ConfigError
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers import auth_world, certificates
from tests.helpers.auth_world import EDGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.helpers.auth_world import World

OTHER = EdgeBoot("edge-2", "boot-b")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with auth_world.make(tmp_path) as world:
        await world.register("alice")
        yield world


def verifier(world: World) -> Verifier:
    return Verifier(certificates.shared().assertion_keys.public, world.clock)


async def test_an_assertion_says_whose_session_is_held_by_which_run_of_which_edge(world: World) -> None:
    grant = await world.log_in("alice")
    claims = verifier(world).verify(world.assertions.issue(grant, EDGE))
    assert (claims.session_id, claims.user_id, claims.username) == (grant.session_id, grant.user_id, "alice")
    assert (claims.edge, claims.boot_id) == (EDGE.name, EDGE.boot_id)
    assert claims.expires_at - claims.issued_at == world.assertions.lifetime_s == 900
    assert grant.token not in str(claims)


async def test_a_new_one_is_given_for_an_old_one_while_the_session_is_open(world: World) -> None:
    grant = await world.log_in("alice")
    old = world.assertions.issue(grant, EDGE)
    world.clock.advance(5_000)  # auth may have been away for long
    (new,) = await world.assertions.renew([old], EDGE)
    assert verifier(world).verify(new).expires_at == world.clock.now() + 900
    await world.sessions.end([grant.session_id])
    assert await world.assertions.renew([old, new], EDGE) == [b"", b""]


@pytest.mark.parametrize("end", ["log out", "revoke"])
async def test_none_is_given_for_a_session_that_has_ended(world: World, end: str) -> None:
    grant = await world.log_in("alice")
    old = world.assertions.issue(grant, EDGE)
    if end == "log out":
        await world.sessions.log_out(grant.session_id)
    else:
        await world.sessions.revoke_all(grant.user_id)
    assert await world.assertions.renew([old], EDGE) == [b""]


async def test_knowing_ids_is_not_enough(world: World) -> None:
    grant = await world.log_in("alice")
    old = world.assertions.issue(grant, EDGE)
    for assertions, edge, reason in (
        ([old], OTHER, "belongs to another edge"),
        ([old], EdgeBoot(EDGE.name, OTHER.boot_id), "belongs to another edge"),
        ([old[:-1] + b" "], EDGE, "is forged"),
        ([b""], EDGE, "is missing"),
        ([grant.session_id.encode()], EDGE, "is not one"),
    ):
        with pytest.raises(ParleyError, match=reason) as caught:
            await world.assertions.renew(assertions, edge)
        assert caught.value.code is ErrorCode.NOT_AUTHENTICATED


async def test_the_keys_are_needed_at_the_start(tmp_path: Path, world: World) -> None:
    keys = certificates.shared().assertion_keys
    good = {"assertion_key_file": keys.private, "assertion_keys_file": keys.public, "assertion_ttl_s": 60.0}
    make = certificates.shared().make
    config = make(AuthConfig, "auth", tmp_path, **good)
    assert open_assertions(config, store=world.store, clock=FakeClock()).lifetime_s == 60
    with pytest.raises(ConfigError, match=r"assertion-key.pem.*`parley certs make` makes keys"):
        open_assertions(make(AuthConfig, "auth", tmp_path), store=world.store, clock=FakeClock())
    with pytest.raises(ValueError, match="assertion_ttl_s: at least 30"):
        make(AuthConfig, "auth", tmp_path, **{**good, "assertion_ttl_s": 3.0})
