"""`parley check`: records what clients see while things break, and proves the delivery promise of that record."""

from __future__ import annotations

import services  # noqa: F401 -- before anything imports gRPC
