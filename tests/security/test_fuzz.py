"""The fuzzer: the same frames from the same seed, nothing found in the wire, and a planted fault found."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from services.common.wire.envelope import parse
from services.common.wire.frames import FrameDecoder
from services.common.wire.requests import REQUESTS, parse_request
from tests.security import fuzz
from tests.security.fuzz import GOOD, Generator, fuzz_wire
from tests.security.fuzz_edge import Fault


def test_a_run_is_its_seed() -> None:
    one, two, other = (Generator(seed) for seed in (7, 7, 8))
    frames = [one.frame() for _ in range(200)]
    assert frames == [two.frame() for _ in range(200)]
    assert frames != [other.frame() for _ in range(200)]


def test_pieces_are_the_whole() -> None:
    made, data = Generator(1), bytes(range(256)) * 50
    assert b"".join(made.cut(data)) == data


def test_every_request_is_among_the_good_ones_and_is_good() -> None:
    assert GOOD.keys() == REQUESTS.keys()
    for type_, data in GOOD.items():
        frame = json.dumps({"type": type_, "data": data}).encode()
        assert type(parse_request(parse(frame))) is REQUESTS[type_]


def test_frames_reach_every_kind_of_outcome_and_nothing_is_found() -> None:
    outcomes = fuzz_wire(20_000, seed=11)
    assert {kind.__name__ for kind in REQUESTS.values()} <= outcomes.keys()
    assert {"text", "refused: bad_json", "refused: bad_request"} <= outcomes.keys()
    assert {"refused: unknown_type", "refused: too_large", "stream ended: bad_frame"} <= outcomes.keys()


def test_an_exception_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> Any:
        raise KeyError("planted")

    monkeypatch.setattr(fuzz, "parse_request", fail)
    with pytest.raises(Fault, match="seed 3: KeyError: 'planted'"):
        fuzz_wire(2_000, seed=3)


def test_slowness_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(time, "thread_time", lambda: next(ticks))
    with pytest.raises(Fault, match="seed 3: took"):
        fuzz_wire(2_000, seed=3)


def test_a_collection_of_garbage_is_not_a_slow_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, looks = 0.0, itertools.count()

    def thread_time() -> float:
        nonlocal ticks
        ticks += 0.7 if next(looks) % 10 == 1 else 0.0
        return ticks

    monkeypatch.setattr(time, "thread_time", thread_time)
    assert fuzz_wire(2_000, seed=3).total() > 1_000


def test_a_decoder_that_holds_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameDecoder, "held_bytes", property(lambda _: 10**9))
    with pytest.raises(Fault, match="the decoder holds"):
        fuzz_wire(2_000, seed=3)
