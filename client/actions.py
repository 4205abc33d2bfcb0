"""What the commands do: each action takes the chat and the words behind the command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from client import display
from client.errors import ClientError, RequestError
from client.replies import Message, RoomSummary
from client.rooms import Room
from client.words import Words, quoted

if TYPE_CHECKING:
    from client.chat import Chat

HISTORY_DEFAULT = 20
HISTORY_MAX = 1000
"""Messages that /history shows at most: some screenfuls; more is for programs."""

PAGE = 200
CONTEXT_MESSAGES = 10
"""Recent messages shown when a room is entered: enough to know what the talk is about."""

ROOMS_SHOWN_MAX = 1000
"""Rooms that /rooms lists before it asks for a query."""


class UsageError(ClientError):
    """A command that was typed in a way that cannot be carried out; the text says how it is done."""


async def register(chat: Chat, words: Words) -> None:
    """/register [USER [PASSWORD]]."""
    username, password = await _credentials(chat, words, is_new=True)
    await chat.session.register(username, password)
    chat.show(display.success(f"The account {username} is yours."))
    if chat.session.username is None:
        await enter_session(chat, username, password)


async def login(chat: Chat, words: Words) -> None:
    """/login [USER [PASSWORD]]."""
    present = chat.session.username
    if present is not None:
        if words and words[0] == present:
            chat.show(display.success(f"You are logged in as {present} already."))
            return
        raise UsageError(f"You are logged in as {present}: /logout first.")
    username, password = await _credentials(chat, words, is_new=False)
    await enter_session(chat, username, password)


async def enter_session(chat: Chat, username: str, password: str) -> None:
    """Logs in and says where the user is; offers to end a session elsewhere that is in the way."""
    try:
        await chat.session.login(username, password)
    except RequestError as problem:
        if problem.code != "already_logged_in":
            raise
        answer = await chat.screen.ask(f"{username} is logged in somewhere else. End that session? Type yes: ")
        if answer is None or answer.strip().lower() != "yes":
            raise
        await chat.session.login(username, password, takeover=True)
    await show_whereabouts(chat)


async def show_whereabouts(chat: Chat) -> None:
    """Says who is logged in and where they are; goes to the room where there is only one."""
    rooms = list(chat.session.rooms)
    chat.show(display.success(f"Logged in as {chat.session.username}."))
    if len(rooms) == 1:
        chat.switch(rooms[0])
        chat.show(display.note(f"You are in #{rooms[0].name}."))
        await _show_context(chat, rooms[0])
    elif rooms:
        names = ", ".join(room.name for room in rooms)
        chat.show(display.note(f"You are in: {names}. /switch ROOM says where your text goes."))
    else:
        chat.show(display.note("You are in no room yet: /rooms lists them, /join enters, /create makes one."))


async def _credentials(chat: Chat, words: Words, *, is_new: bool) -> tuple[str, str]:
    if len(words) > 2:
        raise UsageError(
            "A user name has no spaces, and a password with spaces is written in quotes; or leave it out and be asked."
        )
    username = words[0] if words else await chat.screen.ask("User name: ")
    if not username:
        raise UsageError("A user name is needed.")
    if len(words) == 2:
        return username, words[1]
    password = await chat.screen.ask("Password: ", is_secret=True)
    if not password:
        raise UsageError("A password is needed.")
    if is_new and await chat.screen.ask("The same password again: ", is_secret=True) != password:
        raise UsageError("The two passwords are not the same. Nothing was registered.")
    return username, password


async def logout(chat: Chat, words: Words) -> None:
    """/logout."""
    username = chat.session.username
    unfinished = len(list(chat.session.files))
    await chat.session.logout()
    chat.switch(None)
    chat.show(display.success(f"{username} is logged out."))
    if unfinished:
        chat.show(display.note(f"What is not sent or fetched yet ({unfinished}) goes on at the next login."))


async def create(chat: Chat, words: Words) -> None:
    """/create NAME [--private] [TOPIC…]."""
    is_private = False
    if words and words[0] == "--private":
        is_private, words = True, words.without_first()
    if not words:
        raise UsageError("What is the room to be called?")
    name, words = words[0], words.without_first()
    if words and words[0] == "--private":
        is_private, words = True, words.without_first()
    room = await chat.session.create_room(name, topic=words.rest(0), private=is_private)
    chat.switch(room)
    kind = "private room" if is_private else "room"
    chat.show(display.success(f"The {kind} #{room.name} ({room.room_id}) is yours, and you are in it."))


async def join(chat: Chat, words: Words) -> None:
    """/join ROOM."""
    wanted = words.rest(0)
    if not wanted:
        raise UsageError("Which room? /rooms lists them; its name, its id, or the beginning of its id will do.")
    await join_named(chat, wanted)


async def join_named(chat: Chat, wanted: str) -> None:
    """Enters a room and shows what goes on there."""
    try:
        room = await chat.session.join_room(wanted)
    except RequestError as problem:
        if problem.code == "no_such_room":
            raise UsageError(f"There is no room {wanted!r} that you could join: /rooms lists them.") from problem
        raise
    chat.switch(room)
    topic = f": {room.topic}" if room.topic else ""
    chat.show(display.success(f"You are in #{room.name}{topic}"))
    online = await chat.learn_users(room)
    if online:
        chat.show(display.note(f"Online: {', '.join(online)}"))
    await _show_context(chat, room)


async def leave(chat: Chat, words: Words) -> None:
    """/leave [ROOM]."""
    room = joined_room(chat, words)
    await chat.session.leave_room(room.room_id)
    chat.show(display.success(f"You left #{room.name}."))
    if chat.current is None and len(chat.session.rooms):
        names = ", ".join(one.name for one in chat.session.rooms)
        chat.show(display.note(f"You are still in: {names}. /switch ROOM says where your text goes."))


async def switch(chat: Chat, words: Words) -> None:
    """/switch ROOM."""
    if not words:
        names = ", ".join(quoted(room.name) for room in chat.session.rooms) or "none yet; /join ROOM enters one"
        raise UsageError(f"Which of your rooms? You are in: {names}.")
    room = joined_room(chat, words)
    chat.switch(room)
    chat.show(display.success(f"Your text goes to #{room.name} now."))


def joined_room(chat: Chat, words: Words) -> Room:
    """The room that is named, or the current one. Raises UsageError."""
    wanted = words.rest(0)
    if not wanted:
        if chat.current is None:
            raise UsageError("Which room? You are in none at the moment.")
        return chat.current
    found = chat.session.rooms.find(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{wanted!r} may be any of: {', '.join(quoted(room.name) for room in found)}.")
    raise UsageError(f"You are not in a room {wanted!r}: /join enters one.")


async def rooms(chat: Chat, words: Words) -> None:
    """/rooms [QUERY]."""
    query = words.rest(0)
    found: list[RoomSummary] = []
    cursor = ""
    while len(found) < ROOMS_SHOWN_MAX:
        page = await chat.session.list_rooms(query, cursor=cursor)
        found.extend(page.rooms)
        cursor = page.next_cursor or ""
        if not cursor:
            break
    for room in found:
        chat.listed_rooms[room.id] = room.name
    if not found:
        chat.show(
            display.answer(f"No room matches {query!r}." if query else "There is no room yet: /create NAME makes one.")
        )
        return
    rows = [
        ("*" if room.joined else "", room.id, room.name, room.user_count, room.member_count, room.topic)
        for room in found
    ]
    chat.show(*display.table(("", "ID", "NAME", "ONLINE", "MEMBERS", "TOPIC"), rows))
    more = " There are more: /rooms QUERY shows those with QUERY in their name." if cursor else ""
    chat.show(display.answer(f"* you are in it. /join takes a name, an id, or the first 4 characters of one.{more}"))


async def users(chat: Chat, words: Words) -> None:
    """/users [ROOM]."""
    room = joined_room(chat, words)
    listed = await chat.session.list_users(room.room_id)
    members = {member.username: member for member in listed.members}
    for name in [*listed.users, *members]:
        chat.users.setdefault(name)
    rows = {name: (name, member.role, "online" if member.online else "") for name, member in members.items()}
    rows |= {name: (name, "", "online") for name in listed.users if name not in members}
    chat.show(*display.table((f"#{display.clean(room.name)}", "ROLE", ""), [rows[name] for name in sorted(rows)]))


async def history(chat: Chat, words: Words) -> None:
    """/history [N]."""
    count = HISTORY_DEFAULT
    if words:
        if not (words[0].isascii() and words[0].isdigit() and 1 <= int(words[0][:6]) <= HISTORY_MAX):
            raise UsageError(f"How many messages? A number from 1 to {HISTORY_MAX}.")
        count = int(words[0])
    if chat.current is None:
        raise UsageError("The history of which room? You are in none at the moment.")
    room = chat.current
    messages = await _newest(chat, room, count, before=None)
    if not messages:
        chat.show(display.answer(f"Nothing was said in #{room.name} yet."))
    _show_dated(chat, room, messages)


async def _show_context(chat: Chat, room: Room) -> None:
    if not chat.shows_context or room.seq == 0:
        return
    try:
        messages = await _newest(chat, room, CONTEXT_MESSAGES, before=room.seq + 1)
    except ClientError:
        return  # it was not asked for, so its failure is no news; /history would say why
    _show_dated(chat, room, messages)


async def _newest(chat: Chat, room: Room, count: int, *, before: int | None) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        page = await chat.session.history(room.room_id, before=before, limit=min(PAGE, count - len(messages)))
        messages = page.messages + messages
        if not page.more or not page.messages:
            break
        before = page.messages[0].seq
    return messages


def _show_dated(chat: Chat, room: Room, messages: list[Message]) -> None:
    today = display.day_of(int(chat.clock.now() * 1000), chat.zone)
    shown = today
    for message in messages:
        day = display.day_of(message.ts, chat.zone)
        if day != shown:
            chat.show(display.day_line(day))
            shown = day
        chat.show_message(room, message, is_own=message.username == chat.session.username)
    if shown != today:
        chat.show(display.day_line(today))


async def leave_program(chat: Chat, words: Words) -> None:
    """/quit."""
    chat.is_quitting = True
    await asyncio.sleep(0)
