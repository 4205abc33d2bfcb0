"""A stack of several processes of a kind: two edges and two rooms on a PostgreSQL and a Redis of its own."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.helpers.postgres import PostgresServer
from tests.helpers.redis_server import RedisServer
from tests.helpers.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Many:
    """The stack, and the servers that it stands on."""

    stack: Stack
    postgres: PostgresServer
    redis: RedisServer


@contextmanager
def running_many(config: str) -> Iterator[Many]:
    """Everything serves; it is ended afterwards. The test is skipped, by name, where a server is not installed."""
    postgres, redis = PostgresServer(), RedisServer()
    with ExitStack() as exits:
        for server in (postgres, redis):
            exits.callback(server.close)
            server.start()
        options = ("--rooms", "2", "--database", postgres.make_database(), "--redis", redis.url)
        yield Many(exits.enter_context(running_stack(edges=2, config=config, extra=options)), postgres, redis)
