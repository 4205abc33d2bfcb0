"""Loaded before every test: gRPC is set up as in a service's process, which must happen before its first import."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

import services  # noqa: F401

# The machine that runs the tests does other things too: how long an example takes says nothing about Parley.
settings.register_profile("parley", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parley")
