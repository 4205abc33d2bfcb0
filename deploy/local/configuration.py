"""Checks what every service will be told before any of them is started, so that a typing mistake is said once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from deploy.local.failures import StartError
from services.auth.config import AuthConfig
from services.common.config import ConfigError, ServiceConfig, load
from services.edge.config import EdgeConfig
from services.metrics.config import MetricsConfig
from services.rooms.config import RoomsConfig

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from deploy.local.plan import Spec

CONFIGS: dict[str, type[ServiceConfig]] = {
    "auth": AuthConfig,
    "edge": EdgeConfig,
    "metrics": MetricsConfig,
    "rooms": RoomsConfig,
}


def check(specs: Iterable[Spec], file: Path | None) -> None:
    """Raises StartError, which names the key, where a service would refuse to start."""
    for spec in specs:
        try:
            load(CONFIGS[spec.service], service=spec.service, file=file, environ={**os.environ, **spec.environment})
        except ConfigError as error:
            raise StartError(str(error)) from error
