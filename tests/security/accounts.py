"""Accounts: who one is, with which password, and what a guesser learns."""

from __future__ import annotations

import time

from tests.security.attempt import PASSWORD, Attempt, Check, demand, demand_code, fresh

_GUESSES = 6
_FACTOR_MAX = 2.0
"""Answers for a known and an unknown name may differ by noise; a missing hash would be a hundredfold."""
_INJECTIONS = (
    "' OR 1=1 --",
    '" OR ""="',
    "%",
    "_",
    "'; DROP TABLE rooms; --",
    "1; SELECT pg_sleep(9)",
    "{$ne: null}",
    "\\",
)
_HOSTILE_NAMES = (
    "' OR '1'='1",
    "x'; DROP TABLE accounts; --",
    "",
    "a",
    "a" * 33,
    "two words",
    "admin\x00",
    "nul\x00byte",
    "esc\x1b[31m",
    "right\u202eleft",
    "\u0430lice",  # Cyrillic a
    "\ufeffname",
)


async def check_login(attempt: Attempt) -> str:
    client = await attempt.person()
    reply = await client.request("list_rooms")
    demand(reply["type"] == "room_info", f"list_rooms: {reply}")
    return "a right password opens"


async def check_wrong_and_unknown_look_alike(attempt: Attempt) -> str:
    name = (await attempt.person()).username
    client = await attempt.connect()
    answers = []
    for who in (name, fresh()):
        reply = await client.request("auth_request", {"username": who, "password": "not it " + PASSWORD})
        answers.append({key: reply["data"].get(key) for key in ("success", "code", "error")})
    demand(answers[0] == answers[1], f"the answers differ: {answers}")
    demand(answers[0]["code"] == "invalid_credentials", f"{answers[0]}")
    return "one text, one code"


async def check_timing_tells_nothing(attempt: Attempt) -> str:
    name = (await attempt.person()).username
    client = await attempt.connect()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(_GUESSES):
        for is_known in (True, False):
            who = name if is_known else fresh()
            started = time.perf_counter()
            reply = await client.request("auth_request", {"username": who, "password": f"guess {number} {PASSWORD}"})
            if reply["data"]["code"] == "invalid_credentials":
                seconds[is_known].append(time.perf_counter() - started)
    demand(all(seconds.values()), "everything was rate-limited")
    # The quickest of each: whatever else the machine does makes answers slower, never quicker.
    known, unknown = (min(seconds[is_known]) for is_known in (True, False))
    factor = max(known, unknown) / min(known, unknown)
    demand(factor < _FACTOR_MAX, f"known {known * 1000:.1f} ms, unknown {unknown * 1000:.1f} ms")
    return f"known {known * 1000:.1f} ms, unknown {unknown * 1000:.1f} ms"


async def check_hostile_names(attempt: Attempt) -> str:
    client = await attempt.connect()
    for name in _HOSTILE_NAMES:
        data = {"username": name, "password": PASSWORD}
        await demand_code(client, {"bad_username", "bad_request"}, "register_request", data)
        await demand_code(client, {"invalid_credentials", "bad_request"}, "auth_request", data)
    return f"{len(_HOSTILE_NAMES)} refused"


async def check_look_alikes(attempt: Attempt) -> str:
    name = (await attempt.person()).username
    client = await attempt.connect()
    twins = (name.upper(), name.replace("s", "\uff53", 1), name.replace("e", "\u0435", 1))
    for twin in twins:
        await demand_code(
            client, {"username_taken", "bad_username"}, "register_request", {"username": twin, "password": PASSWORD}
        )
    return "upper case, full width and Cyrillic refused"


async def check_passwords_are_exact(attempt: Attempt) -> str:
    """Every character counts, also behind bcrypt's 72 bytes, a NUL, and in other normal forms."""
    pairs = (
        ("p" * 100 + "a", "p" * 100 + "b"),
        ("before\x00after-the-NUL", "before\x00another-end"),
        ("caf\u00e9-longer", "cafe\u0301-longer"),
        (" leading-and-trailing ", "leading-and-trailing"),
    )
    for right, wrong in pairs:
        client = await attempt.connect()
        name = fresh()
        registered = await client.request("register_request", {"username": name, "password": right})
        if not registered["data"]["success"]:
            demand("\x00" in right, f"a good password was refused: {registered['data']}")
            continue
        await demand_code(client, "invalid_credentials", "auth_request", {"username": name, "password": wrong})
        await client.login(name, right)
    return "72 bytes, NUL, normal forms, spaces"


async def check_weak_passwords(attempt: Attempt) -> str:
    client = await attempt.connect()
    for password in ("", "1234567", "x" * 129):
        await demand_code(
            client, {"weak_password", "bad_request"}, "register_request", {"username": fresh(), "password": password}
        )
    return "empty, 7 and 129 characters refused"


async def check_wrong_types(attempt: Attempt) -> str:
    client = await attempt.connect()
    for password in (None, 1, True, [PASSWORD], {"$ne": ""}):
        await demand_code(client, "bad_request", "auth_request", {"username": fresh(), "password": password})
    return "5 refused"


async def check_injections_are_text(attempt: Attempt) -> str:
    """What would mean something to SQL is a wrong password, and finds only what it spells."""
    client = await attempt.person()
    other = await attempt.connect()
    for word in _INJECTIONS:
        data = {"username": client.username, "password": word}
        await demand_code(other, {"invalid_credentials", "rate_limited"}, "auth_request", data)
        rooms = (await client.expect("list_rooms", {"query": word}))["rooms"]
        demand(not rooms, f"{word!r} finds {len(rooms)} rooms")
        await demand_code(client, "no_such_room", "join_room", {"room_id": word})
    room_id = (await client.expect("create_room", {"name": fresh()}))["room_id"]
    for word in _INJECTIONS:
        await client.say(room_id, word, key=word[:64])
    page = (await client.request("history", {"room_id": room_id}))["data"]["messages"]
    demand([message["text"] for message in page] == list(_INJECTIONS), f"stored otherwise: {page}")
    return f"{len(_INJECTIONS)} are text like any other"


async def check_empty_and_huge_logins(attempt: Attempt) -> str:
    client = await attempt.connect()
    cases = (("", ""), ("", PASSWORD), (fresh(), ""), ("x" * 2_000, PASSWORD), (fresh(), "x" * 2_000))
    for username, password in cases:
        data = {"username": username, "password": password}
        await demand_code(client, {"invalid_credentials", "bad_request"}, "auth_request", data)
    await demand_code(client, "bad_request", "auth_request", {})
    return f"{len(cases) + 1} refused"


CHECKS: dict[str, Check] = {
    "a right password opens": check_login,
    "wrong and unknown look alike": check_wrong_and_unknown_look_alike,
    "timing does not tell who exists": check_timing_tells_nothing,
    "hostile names are refused": check_hostile_names,
    "injections are text": check_injections_are_text,
    "empty and huge logins are refused": check_empty_and_huge_logins,
    "look-alikes of a name are refused": check_look_alikes,
    "every character of a password counts": check_passwords_are_exact,
    "weak passwords are refused": check_weak_passwords,
    "wrong types are refused": check_wrong_types,
}
