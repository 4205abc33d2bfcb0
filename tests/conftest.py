"""Loaded before every test: gRPC is set up as in a service's process, which must happen before its first import."""

from __future__ import annotations

import services  # noqa: F401
