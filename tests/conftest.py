"""Loaded before every test: gRPC is set up as in a service's process, which must happen before its first import."""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

import services  # noqa: F401
from tests.helpers.postgres import own_postgres, postgres_server, postgres_url
from tests.helpers.redis_server import own_redis, redis_server, redis_url

# Fixtures for every test.
__all__ = ["own_postgres", "own_redis", "postgres_server", "postgres_url", "redis_server", "redis_url"]

# The machine that runs the tests does other things too: how long an example takes says nothing about Parley.
settings.register_profile("parley", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parley")


def pytest_collection_finish() -> None:
    """Takes what was collected, thousands of tests, out of the garbage collector's rounds.

    Each full one stood still for half a second, in the middle of whatever a test was waiting for.
    """
    gc.collect()
    gc.freeze()
