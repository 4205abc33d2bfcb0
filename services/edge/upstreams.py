"""Upstreams: the channels to the other services, and a vigil over each instance."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc.aio

from services.common.clock import Clock
from services.common.rpc_client import open_channel
from services.common.vigil import Vigil
from services.edge.backends import AUTH_IDEMPOTENT, ROOMS_IDEMPOTENT
from services.edge.config import EdgeConfig
from services.edge.files.backends import FILES_IDEMPOTENT

_AUTH: Final = "auth"


class Upstreams:
    """Every channel of an edge: `auth`, by target `rooms` and `files`, and `metrics` where there is such a service.

    File bytes have a channel alone: a channel is a connection, and nothing else is to wait behind them.
    """

    def __init__(self, config: EdgeConfig, clock: Clock) -> None:
        auth, rooms = config.auth_target, config.rooms_targets
        self._auth_vigil = Vigil(_AUTH, clock)
        self.vigils = {target: Vigil(f"rooms at {target}", clock) for target in rooms}
        self.auth = open_channel(
            auth, config=config, server=_AUTH, idempotent_methods=AUTH_IDEMPOTENT, vigil=self._auth_vigil
        )
        self.rooms = {
            target: open_channel(
                target, config=config, server="rooms", idempotent_methods=ROOMS_IDEMPOTENT, vigil=vigil
            )
            for target, vigil in self.vigils.items()
        }
        self.files = {
            target: open_channel(
                target, config=config, server="rooms", idempotent_methods=FILES_IDEMPOTENT, vigil=vigil
            )
            for target, vigil in self.vigils.items()
        }
        self.metrics: grpc.aio.Channel | None = None
        if config.otlp_endpoint is not None:
            self.metrics = open_channel(config.otlp_endpoint, config=config, server="metrics")

    async def watch(self) -> None:
        """Keep the vigils until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._auth_vigil.run(self.auth), name="vigil over auth")
            for target, vigil in self.vigils.items():
                tasks.create_task(vigil.run(self.rooms[target]), name=f"vigil over {target}")

    async def close(self) -> None:
        """Close all channels."""
        channels: list[grpc.aio.Channel | None] = [*self.files.values(), *self.rooms.values(), self.auth, self.metrics]
        for channel in channels:
            if channel is not None:
                await channel.close()
