"""Accounts: registering, and one answer after one amount of work for everybody who fails."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

from services.auth.accounts import Accounts
from services.auth.passwords import PasswordScheme, PepperMismatchError
from services.auth.throttle import MemoryThrottle, ThrottlePolicy
from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers import auth_world
from tests.helpers.auth_world import HOME_ADDRESS, PASSWORD, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

ELSEWHERE = "198.51.100.7"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with auth_world.make(tmp_path) as world:
        yield world


async def refusal(coroutine: object) -> ParleyError:
    with pytest.raises(ParleyError) as caught:
        await coroutine  # type: ignore[misc]
    return caught.value


class HeldHashes:
    """bcrypt that waits until the test lets it go on, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.started = threading.Semaphore(0)
        self.count = 0
        self._hash = bcrypt.hashpw
        monkeypatch.setattr(bcrypt, "hashpw", lambda *arguments: self._hold(self._hash, *arguments))

    def _hold(self, work: Callable[..., Any], *arguments: bytes) -> Any:
        self.count += 1
        self.started.release()
        assert self.open.wait(10)
        return work(*arguments)

    async def wait_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=10)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldHashes]:
    held = HeldHashes(monkeypatch)
    yield held
    held.open.set()


# Registering


async def test_who_registered_can_prove_it(world: World) -> None:
    made = await world.register("Alice")
    assert made.username == "alice"
    assert (await world.authenticate("ALICE")).user_id == made.user_id
    assert world.accounts.count == 1
    assert PASSWORD not in repr(made)
    assert made.password_hash not in repr(made)


@pytest.mark.parametrize("again", ["alice", "ALICE", "Ａlice", "a1ice"])
async def test_a_name_is_taken_once_in_any_spelling_or_look(world: World, again: str) -> None:
    await world.register("alice")
    assert (await refusal(world.register(again))).code is ErrorCode.USERNAME_TAKEN
    assert world.accounts.count == 1


async def test_of_racing_registrations_one_wins(world: World) -> None:
    results = await asyncio.gather(*(world.register("alice") for _ in range(10)), return_exceptions=True)
    losers = [result for result in results if isinstance(result, ParleyError)]
    assert len(losers) == 9
    assert {error.code for error in losers} == {ErrorCode.USERNAME_TAKEN}
    assert await world.store.count_accounts() == 1


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [
        ("admin", PASSWORD, ErrorCode.BAD_USERNAME),
        ("al", PASSWORD, ErrorCode.BAD_USERNAME),
        ("еvan", PASSWORD, ErrorCode.BAD_USERNAME),
        ("alice", "short", ErrorCode.WEAK_PASSWORD),
        ("alice", "x1" * 65, ErrorCode.WEAK_PASSWORD),
        ("alice-in-chains", "Alice-In-Chains", ErrorCode.WEAK_PASSWORD),
    ],
)
async def test_what_is_refused_costs_no_hash_and_no_allowance(
    world: World, hashes: HeldHashes, name: str, password: str, code: ErrorCode
) -> None:
    for _ in range(300):
        assert (await refusal(world.register(name, password))).code is code
    assert hashes.count == 0


async def test_registrations_from_one_address_are_limited(tmp_path: Path) -> None:
    clock = FakeClock()
    throttle = MemoryThrottle(ThrottlePolicy(registration_burst=3, registration_interval_s=5), clock)
    async with auth_world.make(tmp_path, clock=clock, throttle=throttle) as world:
        for n in range(3):
            await world.register(f"user{n}")
        error = await refusal(world.register("user3"))
        assert (error.code, error.retry_after_s) == (ErrorCode.RATE_LIMITED, 5)
        await world.register("user4", address=ELSEWHERE)
        clock.advance(5)
        await world.register("user3")


async def test_a_registration_that_cannot_be_stored_is_unavailable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> bool:
        raise ParleyError(ErrorCode.UNKNOWN_OUTCOME, "the commit failed")

    monkeypatch.setattr(world.store, "insert_account", fail)
    assert (await refusal(world.register("alice"))).code is ErrorCode.UNAVAILABLE
    assert world.accounts.count == 0


# Authenticating


async def test_everybody_who_fails_gets_one_answer_after_one_hash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alice", "bob"):
        await world.register(name)
    bob = await world.authenticate("bob")
    await world.store.set_disabled(bob.user_id, disabled=True)
    hashed: list[bytes] = []
    real = bcrypt.hashpw
    monkeypatch.setattr(bcrypt, "hashpw", lambda p, digest: hashed.append(digest[:7]) or real(p, digest))
    answers = []
    for name, password in [
        ("alice", "wrong password"),
        ("nobody", PASSWORD),
        ("bob", PASSWORD),  # disabled, with the right password
        ("not a name", PASSWORD),
        ("", PASSWORD),
        ("alice", ""),
        ("alice", PASSWORD + "\x00"),
        ("alice", PASSWORD.upper()),
        ("alice", "x" * 1000),
    ]:
        error = await refusal(world.authenticate(name, password, address=f"{ELSEWHERE}{len(answers)}"))
        answers.append((error.code, error.message, error.retry_after_s, dict(error.details)))
    assert answers == [answers[0]] * 9
    assert answers[0][0] is ErrorCode.INVALID_CREDENTIALS
    assert hashed == [b"$2b$04$"] * 9


@pytest.mark.parametrize("name", ["alice", "nobody", "not a name", "x" * 1024])
async def test_guessing_is_throttled_alike_for_known_and_unknown_names(world: World, name: str) -> None:
    await world.register("alice")
    codes = [(await refusal(world.authenticate(name, "wrong password", address=ELSEWHERE))).code for _ in range(8)]
    assert codes == [ErrorCode.INVALID_CREDENTIALS] * 6 + [ErrorCode.RATE_LIMITED] * 2
    error = await refusal(world.authenticate(name, PASSWORD, address=ELSEWHERE))
    assert error.retry_after_s == 1
    world.clock.advance(1)
    assert (await refusal(world.authenticate(name, "wrong", address=ELSEWHERE))).code is ErrorCode.INVALID_CREDENTIALS


async def test_a_guesser_elsewhere_does_not_keep_the_owner_out(world: World) -> None:
    await world.register("alice", address=HOME_ADDRESS)
    for n in range(100):
        await refusal(world.authenticate("alice", "wrong password", address=f"203.0.113.{n}"))
    assert (await refusal(world.authenticate("alice", address="203.0.113.200"))).code is ErrorCode.RATE_LIMITED
    assert (await world.authenticate("alice", address=HOME_ADDRESS)).username == "alice"


async def test_hanging_up_early_does_not_make_guesses_free(tmp_path: Path, hashes: HeldHashes) -> None:
    async with auth_world.make(tmp_path, hash_workers=6) as world:
        tasks = [asyncio.create_task(world.authenticate("nobody", f"guess {n}", address=ELSEWHERE)) for n in range(6)]
        for _ in tasks:
            await hashes.wait_started()
        for task in tasks:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        error = await refusal(world.authenticate("nobody", "guess", address=ELSEWHERE))
        assert (error.code, error.retry_after_s) == (ErrorCode.RATE_LIMITED, 1)
        hashes.open.set()


async def test_hanging_up_in_the_queue_is_no_failure(tmp_path: Path, hashes: HeldHashes) -> None:
    async with auth_world.make(tmp_path, hash_workers=1) as world:
        running = asyncio.create_task(world.authenticate("somebody", "guess", address=HOME_ADDRESS))
        await hashes.wait_started()
        for _ in range(20):
            waiting = asyncio.create_task(world.authenticate("nobody", "guess", address=ELSEWHERE))
            await auth_world.until(lambda: world.pool.pending == 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        hashes.open.set()
        await refusal(running)
        assert hashes.count == 1
        error = await refusal(world.authenticate("nobody", "guess", address=ELSEWHERE))
        assert error.code is ErrorCode.INVALID_CREDENTIALS


async def test_a_full_queue_is_told_at_once_and_is_no_failure(
    tmp_path: Path, hashes: HeldHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with auth_world.make(tmp_path, hash_workers=1, hash_queue_max=1) as world:
        tasks = [asyncio.create_task(world.authenticate(f"user{n}", "guess")) for n in range(2)]
        await auth_world.until(lambda: world.pool.pending == 2)
        find = world.store.find_account
        monkeypatch.setattr(world.store, "find_account", None)  # nothing is looked up for who is refused anyway
        for _ in range(20):
            error = await refusal(world.authenticate("alice", "guess"))
            assert error.code is ErrorCode.RATE_LIMITED
            assert error.retry_after_s is not None
        assert hashes.count <= 1
        monkeypatch.setattr(world.store, "find_account", find)
        hashes.open.set()
        for task in tasks:
            await refusal(task)
        assert (await refusal(world.authenticate("alice", "guess"))).code is ErrorCode.INVALID_CREDENTIALS


async def test_a_store_that_fails_is_no_failure_of_the_person(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.register("alice")
    real = world.store.find_account

    async def fail(_: str) -> None:
        raise ParleyError(ErrorCode.UNAVAILABLE, "the storage does not answer")

    monkeypatch.setattr(world.store, "find_account", fail)
    for _ in range(20):
        assert (await refusal(world.authenticate("alice"))).code is ErrorCode.UNAVAILABLE
    monkeypatch.setattr(world.store, "find_account", real)
    assert (await world.authenticate("alice")).username == "alice"


async def test_a_wrong_pepper_is_a_defect_and_not_a_wrong_password(world: World) -> None:
    await world.register("alice")
    other = accounts_with(world, PasswordScheme(pepper=b"q" * 32, rounds=4))
    with pytest.raises(PepperMismatchError):
        await other.authenticate(username="alice", password=PASSWORD, address=HOME_ADDRESS, deadline=30.0)


# Rehashing


def accounts_with(world: World, scheme: PasswordScheme) -> Accounts:
    return Accounts(
        store=world.store,
        scheme=scheme,
        pool=world.pool,
        throttle=world.throttle,
        clock=world.clock,
        tasks=world.tasks,
    )


async def test_a_login_brings_an_old_hash_to_the_configured_rounds(world: World) -> None:
    before = await world.register("alice")
    newer = accounts_with(world, PasswordScheme(pepper=auth_world.PEPPER, rounds=5))
    for _ in range(2):
        await newer.authenticate(username="alice", password=PASSWORD, address=HOME_ADDRESS, deadline=30.0)
        while running := list(world.tasks._tasks):
            await asyncio.wait(running)
    after = await world.store.find_account("alice")
    assert after is not None
    assert "$2b$05$" in after.password_hash
    assert after.user_id == before.user_id
    assert (await newer.authenticate(username="alice", password=PASSWORD, address="", deadline=30.0)) == after


async def test_a_failed_login_rehashes_nothing(world: World) -> None:
    before = await world.register("alice")
    newer = accounts_with(world, PasswordScheme(pepper=auth_world.PEPPER, rounds=5))
    await refusal(newer.authenticate(username="alice", password="wrong", address=HOME_ADDRESS, deadline=30.0))
    assert len(world.tasks) == 0
    assert await world.store.find_account("alice") == before


async def test_the_count_is_set_right_from_the_store(world: World) -> None:
    await world.register("alice")
    world.accounts.count = 77
    await world.accounts.recount()
    assert world.accounts.count == 1
