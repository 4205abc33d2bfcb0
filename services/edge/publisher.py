"""The publisher: every text between its queue and its answer, and the batches in which they go to rooms.

A text stays in the table until rooms has said what became of it. The feed takes what has queued up as one batch
whenever it can write. When the stream is lost, everything unresolved goes again, in the original order and with the
keys it had, so that rooms can tell repetitions (a text without a key gets one of the edge's). After 10 s the client
is told: `unavailable` where the text was never written to a stream, `unknown_outcome` where it was.

At most a few batches are under way at a time. While rooms commits one, the next lies ready there; a third would gain
nothing by leaving early, but by waiting it grows, and the cost is by the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Final

from parley.rooms.v1 import feed_pb2

from services.common.wire.codes import ErrorCode
from services.edge.decisions import Text, Voucher
from services.edge.message_spans import NoSpans, TextSpans

_MESSAGES: Final = {
    ErrorCode.NOT_A_MEMBER: "you are not a member of this room",
    ErrorCode.NO_SUCH_ROOM: "there is no such room",
    ErrorCode.FORBIDDEN: "this room is closed",
    ErrorCode.CONFLICT: "this key was used for another text in this room",
    ErrorCode.OVERLOADED: "the server has too much to do; try again in a moment",
    ErrorCode.UNAVAILABLE: "the message could not be stored; try again",
    ErrorCode.UNKNOWN_OUTCOME: "it is not known whether the message was stored; send it again with the same key",
}
# Rooms did not get to see whether the text had come to it before, by a stream that was lost. Its other refusals are
# given after a look at what is stored.
_SAY_NOTHING_OF_EARLIER: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED, ErrorCode.INTERNAL})
_INTERNAL: Final = "something went wrong on the server"

_BYTES_PER_CHAR_MAX: Final = 4
_VOUCHED_MAX: Final = 20_000
"""People whose assertions rooms is known to have; beyond them all are told once more."""


def refusal_text(code: ErrorCode) -> str:
    """What people are told about a text that was refused with this code."""
    return _MESSAGES.get(code, _INTERNAL)


def _number(text: Text) -> int:
    return text.number


def _code(name: str) -> ErrorCode:
    try:
        return ErrorCode(name)
    except ValueError:  # a newer rooms may have codes that this edge does not know
        return ErrorCode.INTERNAL


class Publisher:
    """The table of texts under way.

    `wake_feed()` is called when `fill` has something to give, `on_room()` when texts were resolved and `has_room` may
    be true again, `count_stored(seconds, count)` for texts that were stored after so long. Each text's connection is
    told its outcome by `text_stored` or `text_refused`. Times are monotonic. Publishers between which texts move share
    `next_number` and `spans`.
    """

    def __init__(
        self,
        *,
        boot_id: str,
        texts_max: int,
        bytes_max: int,
        batches_max: int,
        timeout_s: float,
        wake_feed: Callable[[], object],
        on_room: Callable[[], object],
        count_stored: Callable[[float, int], object],
        next_number: Callable[[], int] | None = None,
        spans: TextSpans | None = None,
    ) -> None:
        self._key_prefix = f"e{boot_id}-"
        self._texts_max = texts_max
        self._bytes_max = bytes_max
        self._batches_max = batches_max
        self._timeout_s = timeout_s
        self._wake_feed = wake_feed
        self._on_room = on_room
        self._count_stored = count_stored
        self._next_number = next_number or count(1).__next__
        self._spans = spans or NoSpans()
        self._pending: dict[int, Text] = {}
        self._bytes = 0
        self._unwritten: list[Text] = []
        self._batch_ends: deque[int] = deque()  # the last number of each batch under way
        self._is_connected = False
        self._vouched: dict[str, bytes] = {}  # by user: the assertion that the stream has brought to rooms

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        """Whether another text may be submitted."""
        return len(self._pending) < self._texts_max and self._bytes < self._bytes_max

    @property
    def bytes(self) -> int:
        """What the texts under way count for."""
        return self._bytes

    @property
    def is_waiting(self) -> bool:
        """Whether a batch is under way."""
        return self._is_connected and bool(self._batch_ends)

    @property
    def unresolved(self) -> list[Text]:
        """The texts without an answer, in order."""
        return list(self._pending.values())

    def is_pending(self, number: int) -> bool:
        """Whether a text has no answer yet."""
        return number in self._pending

    def submit(self, text: Text, now: float) -> None:
        """Take a text; its connection is told what became of it."""
        if now - text.received_at >= self._timeout_s or text.is_cut_off:  # it waited for room, and is not expected
            self._refuse((text,), now)
            return
        text.number = self._next_number()
        body = text.text
        text.size = len(body) if body.isascii() else len(body) * _BYTES_PER_CHAR_MAX
        self._bytes += text.size
        self._pending[text.number] = text
        if not self._unwritten:
            self._wake_feed()
        self._unwritten.append(text)

    def connected(self) -> None:
        """There is a stream, and it is new: everything unresolved is to be written to it.

        Texts that are cut off are left to expire.
        """
        self._is_connected = True
        self._batch_ends.clear()
        self._vouched.clear()
        self._unwritten = [text for text in self._pending.values() if not text.is_cut_off]

    def disconnected(self) -> None:
        """The stream is lost."""
        self._is_connected = False

    def withdraw(self, leaves: Callable[[str], bool]) -> list[Text]:
        """Give away the unresolved texts of the rooms that leave, in order; answers to them are ignored from now on."""
        texts = [text for text in self._pending.values() if leaves(text.room_id)]
        if texts:
            for text in texts:
                del self._pending[text.number]
                self._bytes -= text.size
            self._unwritten = [text for text in self._unwritten if text.number in self._pending]
            self._settle()
        return texts

    def adopt(self, texts: Iterable[Text]) -> None:
        """Take over unresolved texts from another publisher; each goes where its number is in the order."""
        texts = list(texts)
        self._bytes += sum(text.size for text in texts)
        pending = sorted([*self._pending.values(), *texts], key=_number)
        self._pending.clear()
        self._pending.update((text.number, text) for text in pending)
        self._unwritten = sorted([*self._unwritten, *(text for text in texts if not text.is_cut_off)], key=_number)
        self._wake_feed()

    def fill(self, request: feed_pb2.AttachRequest) -> None:
        """Put the next batch into a request, in order; nothing where enough are under way. It counts as written."""
        if not self._unwritten or not self._is_connected or len(self._batch_ends) >= self._batches_max:
            return
        texts, self._unwritten = self._unwritten, []
        prefix = self._key_prefix
        vouched = self._vouched
        for text in texts:
            text.is_rewritten = text.is_written
            text.is_written = True
            voucher = text.voucher
            if voucher is not None and vouched.get(text.user_id) is not voucher.assertion:
                self._vouch(text.user_id, voucher, request)
        self._batch_ends.append(texts[-1].number)
        columns = request.publishes
        columns.numbers.extend([text.number for text in texts])
        columns.room_ids.extend([text.room_id for text in texts])
        columns.user_ids.extend([text.user_id for text in texts])
        columns.usernames.extend([text.username for text in texts])
        columns.texts.extend([text.text for text in texts])
        columns.keys.extend(["c" + text.key if text.key is not None else prefix + str(text.number) for text in texts])
        for number, context in self._spans.written(texts).items():
            columns.traces[number] = context

    def _vouch(self, user_id: str, voucher: Voucher, request: feed_pb2.AttachRequest) -> None:
        """Rooms learns from the request that auth vouches for a person; once on a stream, and after each renewal."""
        if len(self._vouched) >= _VOUCHED_MAX:
            self._vouched.clear()
        self._vouched[user_id] = voucher.assertion
        if voucher.assertion:
            request.assertions.append(voucher.assertion)

    def resolve(self, stored: feed_pb2.Stored, results: Sequence[feed_pb2.PublishResult], now: float) -> None:
        """Rooms has said what became of some texts. What was given up already is ignored."""
        pending = self._pending
        if stored.numbers:
            self._spans.stored(stored.numbers, stored.epochs, stored.seqs, pending.get(stored.numbers[0]))
        new = zip(stored.numbers, stored.epochs, stored.seqs, stored.sent_at_ms, strict=True)
        since, same = now, 0  # texts that came in one read have one time: they are counted together
        for number, epoch, seq, sent_at_ms in new:
            text = pending.pop(number, None)
            if text is None:
                continue
            self._bytes -= text.size
            if text.received_at != since:
                self._count_stored(now - since, same)
                since, same = text.received_at, 0
            same += 1
            text.connection.text_stored(text, epoch, seq, sent_at_ms, False, now)
        self._count_stored(now - since, same)
        for result in results:
            text = pending.pop(result.number, None)
            if text is None:
                continue
            self._bytes -= text.size
            if result.error_code:
                code = _code(result.error_code)
                if code is ErrorCode.NOT_AUTHENTICATED and text.voucher is not None:
                    text.voucher.doubt()
                    code = ErrorCode.UNAVAILABLE  # for a moment, as far as the person is concerned
                if text.is_rewritten and code in _SAY_NOTHING_OF_EARLIER:
                    code = ErrorCode.UNKNOWN_OUTCOME
                self._spans.refused(text, code)
                text.refuse(code, refusal_text(code), result.retry_after_s or None, now)
                continue
            self._count_stored(now - text.received_at, 1)
            self._spans.stored([result.number], [result.epoch], [result.seq], None)
            text.connection.text_stored(text, result.epoch, result.seq, result.sent_at_ms, result.duplicate, now)
        if results:
            self._cut_off(now)
        self._settle()

    def expire(self, now: float) -> int:
        """Give up texts that have waited for too long; return how many.

        With a text goes all that its connection has sent to the room behind it: its sender, who may well send it
        again, here or elsewhere, must not find what came later stored in front of it.
        """
        expired = []
        origins = set()
        for text in self._pending.values():
            origin = (id(text.connection), text.room_id)
            if now - text.received_at >= self._timeout_s or origin in origins or text.is_cut_off:
                origins.add(origin)
                expired.append(text)
        self._give_up(expired, now)
        return len(expired)

    def _cut_off(self, now: float) -> None:
        """Give up what was not written yet and is behind a text that was turned away."""
        self._give_up([text for text in self._unwritten if text.is_cut_off], now)

    def _give_up(self, texts: Sequence[Text], now: float) -> None:
        if not texts:
            return
        for text in texts:
            del self._pending[text.number]
            self._bytes -= text.size
        self._unwritten = [text for text in self._unwritten if text.number in self._pending]
        self._refuse(texts, now)
        self._settle()

    def _refuse(self, texts: Iterable[Text], now: float) -> None:
        for text in texts:
            code = ErrorCode.UNKNOWN_OUTCOME if text.is_written else ErrorCode.UNAVAILABLE
            self._spans.refused(text, code)
            text.refuse(code, refusal_text(code), None, now)

    def _settle(self) -> None:
        ends = self._batch_ends
        while ends and ends[0] not in self._pending:
            ends.popleft()
        if self._unwritten and len(ends) < self._batches_max:
            self._wake_feed()
        self._on_room()
