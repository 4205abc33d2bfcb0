"""What /trace does: asks for the way of an own message, and shows it as a waterfall."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from client import display, waterfall
from client.actions import UsageError
from client.replies import Trace
from client.words import Words

if TYPE_CHECKING:
    from client.chat import Chat

ASK_AGAIN_S = 0.5
ASKED_MAX = 7
"""What a message has left behind is collected within two seconds, and longer where the servers are busy."""

SETTLE_S = 5.0

CLIENT = "client"
DELIVERY = "deliver"


async def trace(chat: Chat, words: Words) -> None:
    """/trace [MESSAGE]."""
    await chat.session.settle(SETTLE_S)  # the last message may not be answered yet
    message_id = _message_id(chat, words)
    found = Trace(message_id)
    for asked in range(ASKED_MAX):
        if asked:
            await chat.clock.sleep(ASK_AGAIN_S)
        found = await chat.session.ask("trace", Trace, {"message_id": message_id})
        if is_whole(found):
            break
    if not found.spans:
        chat.show(
            display.answer(
                f"Nobody measured {display.clean(message_id)}: your messages are, but at most one a second, "
                "and it is kept for a day."
            )
        )
        return
    chat.show(display.answer(f"Where the time of {display.clean(message_id)} went:"))
    columns = shutil.get_terminal_size((100, 24)).columns
    chat.show(*(display.answer(line) for line in waterfall.draw(_bars(found), width=columns)))


def is_whole(found: Trace) -> bool:
    """Whether nothing of a message's way is on its way to the collector any more, as far as anybody can know.

    What the client has measured comes last from its edge. What rooms has to tell comes from another process, sooner or
    later than that; that it is missing shows in a delivery below a span that is not there.
    """
    known = {span.span_id for span in found.spans}
    is_told = any(span.service == CLIENT for span in found.spans)
    return is_told and all(span.parent_id in known for span in found.spans if span.name == DELIVERY)


def _message_id(chat: Chat, words: Words) -> str:
    if not words:
        if chat.last_own is None:
            raise UsageError("You have not sent anything yet since you logged in.")
        return chat.last_own
    if words[0].isascii() and words[0].isdigit():
        if chat.current is None:
            raise UsageError("A number is that of a message in the current room, and you are in none.")
        return f"{chat.current.room_id}-{chat.current.epoch}-{int(words[0][:18])}"
    return words[0]


def _bars(found: Trace) -> list[waterfall.Bar]:
    return [
        waterfall.Bar(
            span_id=span.span_id,
            parent_id=span.parent_id,
            who=span.service if span.service == CLIENT else span.instance,
            name=span.name,
            start_ns=span.start_us * 1_000,
            end_ns=(span.start_us + span.duration_us) * 1_000,
            error=span.error,
        )
        for span in found.spans
    ]
