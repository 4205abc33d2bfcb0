"""The commands: a table of names, usages, helps, completers and actions, and the way from a typed line to an action."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client import actions, display, file_actions, traces
from client.actions import UsageError
from client.files.paths import completions as completions_of_path
from client.files.words import short_id
from client.words import QUOTES, Words, quoted, split

if TYPE_CHECKING:
    from client.chat import Chat

Action = Callable[["Chat", Words], Awaitable[None]]
Completer = Callable[["Chat"], Iterable[str]]


def no_words(chat: Chat) -> Iterable[str]:
    """Nothing can be guessed here."""
    return ()


def command_names(chat: Chat) -> Iterable[str]:
    """All commands."""
    return COMMANDS


def joined_rooms(chat: Chat) -> Iterable[str]:
    """The names of the rooms that the user is in."""
    return (room.name for room in chat.session.rooms)


def known_rooms(chat: Chat) -> Iterable[str]:
    """The names of all rooms that were listed or joined."""
    return dict.fromkeys([*joined_rooms(chat), *chat.listed_rooms.values()])


def known_users(chat: Chat) -> Iterable[str]:
    """All user names that were seen."""
    return chat.users


def known_files(chat: Chat) -> Iterable[str]:
    """Names and ids of the files that were seen, the newest first."""
    newest = list(reversed(chat.files.values()))
    return dict.fromkeys([*(file.name for file in newest), *(short_id(file.file_id) for file in newest)])


def transfer_numbers(chat: Chat) -> Iterable[str]:
    """The numbers of what is being sent and fetched."""
    return (str(transfer.number) for transfer in chat.session.files)


@dataclass(frozen=True)
class Command:
    """A command: `usage` without its name, `summary` in a line of /help, `details` in /help NAME."""

    name: str
    usage: str
    summary: str
    action: Action
    details: str = ""
    completer: Completer = no_words
    takes_password: bool = False
    path_from: int | None = None
    """From this word on, counted from 0, the rest of the line is a path."""


async def show_help(chat: Chat, words: Words) -> None:
    """/help [COMMAND]."""
    if words:
        command = find(words[0].removeprefix("/"))
        chat.show(display.answer(f"/{command.name} {command.usage}".rstrip()), display.answer(f"  {command.summary}."))
        for line in command.details.splitlines():
            chat.show(display.answer(f"  {line}"))
        return
    width = max(len(f"{command.name} {command.usage}") for command in COMMANDS.values())
    for command in COMMANDS.values():
        chat.show(display.answer(f"/{f'{command.name} {command.usage}':<{width}}  {command.summary}"))
    chat.show(display.answer("Everything else is sent to the current room; //text sends a text that begins with /."))


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("help", "[COMMAND]", "shows the commands, or one of them", show_help, completer=command_names),
        Command(
            "register",
            "[USER [PASSWORD]]",
            "makes an account and logs in",
            actions.register,
            "A password that is left out is asked for and not shown while you type it.",
            takes_password=True,
        ),
        Command(
            "login",
            "[USER [PASSWORD]]",
            "logs in",
            actions.login,
            "A password that is left out is asked for and not shown while you type it.",
            completer=known_users,
            takes_password=True,
        ),
        Command("logout", "", "logs out", actions.logout),
        Command(
            "create",
            "NAME [--private] [TOPIC…]",
            "makes a room and enters it",
            actions.create,
            'A name with spaces is written in quotes: /create "tea room" all about tea\n'
            "A private room is seen by its members only.",
        ),
        Command(
            "join",
            "ROOM",
            "enters a room; your text goes there",
            actions.join,
            "ROOM is a name, an id, or the first 4 characters of an id or more, as /rooms shows them.",
            completer=known_rooms,
        ),
        Command("leave", "[ROOM]", "leaves the current room, or another", actions.leave, completer=joined_rooms),
        Command("rooms", "[QUERY]", "lists the rooms, or those with QUERY in their name", actions.rooms),
        Command(
            "users", "[ROOM]", "lists who is in the current room, or another", actions.users, completer=joined_rooms
        ),
        Command(
            "history",
            "[N]",
            f"shows the last {actions.HISTORY_DEFAULT} messages of the current room, or the last N",
            actions.history,
        ),
        Command(
            "switch", "ROOM", "sends your text to another one of your rooms", actions.switch, completer=joined_rooms
        ),
        Command(
            "file",
            "PATH",
            "sends a file to the current room",
            file_actions.send,
            "It goes on by itself after a lost connection, and at the next login after the end of the program.",
            path_from=0,
        ),
        Command(
            "files",
            "[ROOM]",
            "lists the files of the current room, or another, and what is under way",
            file_actions.files,
            completer=joined_rooms,
        ),
        Command(
            "get",
            "ID [PATH]",
            "fetches a file",
            file_actions.get,
            "ID is the beginning of its id, as /files shows it, or its name.\n"
            "PATH is a folder, or the name of a new file; left out, it goes to the folder for downloads.\n"
            "Nothing is overwritten, and the file gets its name when it is complete and its hash is right.",
            completer=known_files,
            path_from=1,
        ),
        Command(
            "cancel",
            "[NUMBER]",
            "gives up what is being sent or fetched",
            file_actions.cancel,
            completer=transfer_numbers,
        ),
        Command(
            "trace",
            "[MESSAGE]",
            "shows where the time of your last message went, or of another one of yours",
            traces.trace,
            "MESSAGE is its number in the current room, or its whole id.",
        ),
        Command("quit", "", "ends the program; so does Ctrl-D", actions.leave_program),
    )
}


def find(name: str) -> Command:
    """A command by its name, or by a beginning that only it has. Raises UsageError that names the nearest ones."""
    name = name.lower()
    if name in COMMANDS:
        return COMMANDS[name]
    begun = [known for known in COMMANDS if name and known.startswith(name)]
    near = begun or difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.6)
    if near:
        raise UsageError(f"There is no command /{name}. Did you mean {' or '.join(f'/{one}' for one in near)}?")
    raise UsageError(f"There is no command /{name}. /help lists them; //{name} sends it as text.")


async def run(chat: Chat, line: str) -> None:
    """Runs a line that begins with /. Raises UsageError, ClientError."""
    if "\n" in line:
        raise UsageError("A command is one line. To send this as text, write // in place of the first /.")
    words = split(line)
    name = words[0].removeprefix("/")
    if not name:
        raise UsageError("/help lists the commands; // begins a text with /.")
    command = find(name)
    try:
        await command.action(chat, words.without_first())
    except UsageError as problem:
        raise UsageError(f"{problem}\nUsage: /{command.name} {command.usage}".rstrip()) from problem


def completions(chat: Chat, line: str) -> list[tuple[str, int]]:
    """What may be meant at the end of `line`: replacements, and how many characters of the line each replaces."""
    if line.startswith("/") and not line.startswith("//"):
        words = split(line)
        if len(words) <= 1 and not line.endswith(" "):
            begun = line[1:].lower()
            # What takes words gets the space before them too.
            return [
                (f"/{command.name}{' ' if command.usage else ''}", len(line))
                for command in COMMANDS.values()
                if command.name.startswith(begun)
            ]
        command = COMMANDS.get(words[0][1:].lower())
        if command is None:
            return []
        if command.path_from is not None and (path := _path_begun(line, words, command.path_from + 1)) is not None:
            return _matching_paths(path)
        begun = line[words.starts[1] :] if len(words) > 1 else ""
        return _matching(command.completer(chat), begun)
    begun = line.rpartition(" ")[2]
    return _matching(known_users(chat), begun) if begun else []


def _path_begun(line: str, words: Words, index: int) -> str | None:
    """What is typed of a path that begins with a word; None where the words before it are not complete."""
    if len(words) > index:
        return line[words.starts[index] :]
    return "" if len(words) == index and line.endswith(" ") else None


def _matching_paths(begun: str) -> list[tuple[str, int]]:
    quote = begun[:1] if begun[:1] in QUOTES else ""
    found = completions_of_path(begun.removeprefix(quote))
    return [(f"{quote}{path}{'' if path.endswith('/') else quote}", len(begun)) for path in found]


def _matching(candidates: Iterable[str], begun: str) -> list[tuple[str, int]]:
    wanted = begun.lstrip("\"'").casefold()
    clean = (display.clean(candidate) for candidate in candidates)
    return [
        (quoted(name), len(begun)) for name in sorted(clean, key=str.casefold) if name.casefold().startswith(wanted)
    ]


def without_password(line: str) -> str:
    """A line as it may be remembered: without the password that some commands take."""
    words = split(line)
    if not words or not words[0].startswith("/"):
        return line
    command = COMMANDS.get(words[0][1:].lower())
    if command is None or not command.takes_password or len(words) <= 2:
        return line
    return line[: words.starts[2]].rstrip()
