from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError

import pytest

from services.common import resource
from services.common.resource import NAMESPACE, resource_of


def test_a_process_is_named_by_service_and_instance() -> None:
    attributes = resource_of("edge", "edge-1").attributes
    assert (attributes["service.namespace"], attributes["service.name"]) == (NAMESPACE, "edge")
    assert attributes["service.instance.id"] == "edge-1"
    assert attributes["process.pid"] == os.getpid()
    assert all(attributes[key] for key in ("service.version", "host.name", "os.type", "telemetry.sdk.version"))


def test_a_folder_that_was_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resource.version

    def version(name: str) -> str:
        if name == NAMESPACE:
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(resource, "version", version)
    assert resource_of("edge", "edge-1").attributes["service.version"] == "unknown"
