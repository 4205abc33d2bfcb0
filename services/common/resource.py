"""The resource: who it is that reports, in OpenTelemetry's words."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from opentelemetry.sdk.resources import Resource

NAMESPACE: Final = "parley"


def resource_of(service: str, instance: str) -> Resource:
    """The resource of the process called `instance` ("edge-1") of a service ("edge")."""
    return Resource(
        {
            "service.namespace": NAMESPACE,
            "service.name": service,
            "service.instance.id": instance,
            "service.version": _version(),
            "host.name": socket.gethostname(),
            "host.arch": platform.machine(),
            "os.type": platform.system().lower(),
            "process.pid": os.getpid(),
            "process.runtime.name": platform.python_implementation().lower(),
            "process.runtime.version": platform.python_version(),
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": version("opentelemetry-sdk"),
        }
    )


def _version() -> str:
    try:
        return version(NAMESPACE)
    except PackageNotFoundError:  # runs from a folder that was not installed
        return "unknown"
