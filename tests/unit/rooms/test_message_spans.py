from __future__ import annotations

from services.common.clock import FakeClock
from services.common.tracing import MESSAGE_ID
from services.common.wire.codes import ErrorCode
from services.rooms.message_spans import LIVE_MAX, MessageSpans
from services.rooms.messages import Message, Outcome, Publish, Run
from tests.helpers.spans import is_below, one, recorded

CONTEXT = bytes(range(1, 25))
OTHER = bytes(range(2, 26))


def publish(number: int) -> Publish:
    return Publish(number, "r1", "u1", "ada", "hi", f"k{number}")


def run(*seqs: int) -> Run:
    return Run("r1", "e", [Message(seq, "u1", "ada", "hi", 0) for seq in seqs])


def test_a_stored_message_has_spans_and_goes_out_with_its_context() -> None:
    clock = FakeClock()
    spans = MessageSpans(clock)
    with recorded() as ended:
        answered = spans.watch({2: CONTEXT, 3: OTHER})
        clock.advance(0.010)
        spans.on_commit(0.004)
        answered([publish(1), publish(2), publish(3)], [Outcome("e", 5), Outcome("e", 6), Outcome("e", 7)])
        assert spans.take(run(1, 2)) == {}
        contexts = spans.take(run(5, 6, 7))
        assert spans.take(run(5, 6, 7)) == {}
    first, second = (span for span in ended if span.name == "store")
    commit = one(ended, "commit")
    assert is_below(commit, first)
    assert [link.context.span_id for link in commit.links] == [second.context.span_id]  # type: ignore[union-attr]
    assert commit.end_time - commit.start_time == 4_000_000  # type: ignore[operator]
    assert first.attributes[MESSAGE_ID] == "r1-e-6"  # type: ignore[index]
    assert set(contexts) == {6, 7}
    assert contexts[6][:16] == CONTEXT[:16]
    assert contexts[6][16:] == first.context.span_id.to_bytes(8, "big")  # type: ignore[union-attr]


def test_refused_and_doubled_messages_do_not_go_out() -> None:
    spans = MessageSpans(FakeClock())
    with recorded() as ended:
        answered = spans.watch({1: CONTEXT, 2: OTHER, 9: b"nonsense"})
        answered([publish(1)], [Outcome("e", 5, is_duplicate=True)])
        answered([publish(2)], [Outcome(code=ErrorCode.UNAVAILABLE)])
        answered([publish(9)], None)
        spans.watch({3: CONTEXT})([publish(3)], None)
        assert spans.take(run(5)) == {}
    stored, refused, unknown = (span for span in ended if span.name == "store")
    assert stored.status.is_ok
    assert (refused.status.description, unknown.status.description) == ("unavailable", "unknown_outcome")


def test_what_nobody_follows_is_forgotten() -> None:
    spans = MessageSpans(FakeClock())
    with recorded():
        for number in range(1, LIVE_MAX + 100):
            spans.watch({number: CONTEXT})([publish(number)], [Outcome("e", number)])
        assert len(spans._live) == LIVE_MAX
        assert spans.take(run(1)) == {}
