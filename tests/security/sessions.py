"""Sessions: one for each account, and tokens that die when they should."""

from __future__ import annotations

from tests.security.attempt import PASSWORD, Attempt, Check, demand, demand_code, fresh

_CLOSING_S = 10.0


async def check_duplicate_login(attempt: Attempt) -> str:
    first = await attempt.person()
    second = await attempt.connect()
    data = {"username": first.username, "password": PASSWORD}
    await demand_code(second, "already_logged_in", "auth_request", data)
    reply = await first.request("heartbeat")
    demand(reply["type"] == "heartbeat", "the first session suffered")
    return "refused, the first goes on"


async def check_takeover(attempt: Attempt) -> str:
    first = await attempt.connect()
    token = (await first.enter(fresh(), PASSWORD))["token"]
    second = await attempt.connect()
    data = {"username": first.username, "password": PASSWORD, "takeover": True}
    demand((await second.request("auth_request", data))["data"]["success"], "takeover was refused")
    goodbye = await first.event("goodbye", _CLOSING_S)
    demand(goodbye["data"]["reason"] == "replaced", f"goodbye {goodbye['data']}")
    demand(await first.is_closed(_CLOSING_S), "the first connection stays open")
    thief = await attempt.connect()
    await demand_code(thief, "bad_token", "resume", {"token": token, "rooms": {}})
    return "the first is replaced, its token is dead"


async def check_logout_kills_the_token(attempt: Attempt) -> str:
    client = await attempt.connect()
    token = (await client.enter(fresh(), PASSWORD))["token"]
    await client.expect("logout")
    await demand_code(client, "not_authenticated", "list_rooms", {})
    other = await attempt.connect()
    await demand_code(other, "bad_token", "resume", {"token": token, "rooms": {}})
    return "nothing opens with it"


async def check_tokens_are_the_servers(attempt: Attempt) -> str:
    """Session fixation: what a client proposes is not used."""
    client = await attempt.connect()
    proposed = "A" * 43
    name = fresh()
    await client.expect("register_request", {"username": name, "password": PASSWORD})
    reply = await client.expect("auth_request", {"username": name, "password": PASSWORD, "token": proposed})
    demand(reply["token"] != proposed, "the client's token was taken")
    other = await attempt.connect()
    await demand_code(other, "bad_token", "resume", {"token": proposed, "rooms": {}})
    return "a proposed token is ignored"


async def check_bad_tokens(attempt: Attempt) -> str:
    client = await attempt.connect()
    for token in ("", "x", "A" * 43, "../" * 20, "\x00" * 8, "' OR 1=1 --"):
        await demand_code(client, {"bad_token", "bad_request"}, "resume", {"token": token, "rooms": {}})
    return "6 refused"


async def check_old_token_after_the_new_was_used(attempt: Attempt) -> str:
    first = await attempt.connect()
    old = (await first.enter(fresh(), PASSWORD))["token"]
    token = old
    for _ in range(2):  # the second uses the token that the first gave
        client = await attempt.connect()
        token = (await client.expect("resume", {"token": token, "rooms": {}}))["token"]
    thief = await attempt.connect()
    await demand_code(thief, "bad_token", "resume", {"token": old, "rooms": {}})
    return "dead once its successor was used"


async def check_a_token_opens_one_session(attempt: Attempt) -> str:
    first = await attempt.connect()
    token = (await first.enter(fresh(), PASSWORD))["token"]
    second, third = await attempt.connect(), await attempt.connect()
    await second.expect("resume", {"token": token, "rooms": {}})
    demand(await first.is_closed(_CLOSING_S), "the connection that was resumed elsewhere stays open")
    await third.expect("resume", {"token": token, "rooms": {}})  # its successor was not used yet: a lost answer
    demand(await second.is_closed(_CLOSING_S), "one token, two sessions")
    return "whoever uses it again replaces the one before"


CHECKS: dict[str, Check] = {
    "a second login is refused": check_duplicate_login,
    "a takeover ends the first session": check_takeover,
    "logout kills the token": check_logout_kills_the_token,
    "a session cannot be fixed in advance": check_tokens_are_the_servers,
    "garbage is no token": check_bad_tokens,
    "a token opens one session at a time": check_a_token_opens_one_session,
    "a used-up token opens nothing": check_old_token_after_the_new_was_used,
}
