"""The profiles `otel` and `jaeger`: the trace of a message that people said through haproxy is in Jaeger."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.compose.engine import docker, has_image
from tests.helpers.operator import traceparent
from tests.helpers.people import fresh
from tests.helpers.raw_client import RawClient
from tests.helpers.stack import eventually
from tests.helpers.tracing_programs import Jaeger, skip_where_left_out

if TYPE_CHECKING:
    from tests.compose.engine import Compose

pytestmark = pytest.mark.compose

IMAGES = ("otel/opentelemetry-collector:0.111.0", "jaegertracing/all-in-one:1.62.0")
ARRIVES_S = 60.0


async def _say_something(stack: Compose) -> tuple[str, str]:
    """One message; its trace id and its own id."""
    context, trace_id, _ = traceparent()
    async with await RawClient.connect("127.0.0.1", stack.port, stack.ca) as alice:
        await alice.enter(fresh())
        room_id = str((await alice.expect("create_room", {"name": fresh("room")}))["room_id"])
        sent = await alice.expect("text_message", {"text": "traced"}, room_id=room_id, traceparent=context)
        message_id = f"{room_id}-{sent['epoch']}-{sent['seq']}"
        # It is still the person's own to look at: what goes on elsewhere is kept here as well.
        async with asyncio.timeout(ARRIVES_S):
            while not (await alice.expect("trace", {"message_id": message_id}))["spans"]:  # noqa: ASYNC110 - asks others
                await asyncio.sleep(0.5)
    return trace_id, message_id


def test_the_trace_of_a_message_goes_through_the_collector_to_jaeger(stack: Compose) -> None:
    missing = [image for image in IMAGES if not has_image(image)]
    if missing:
        skip_where_left_out()
    if missing and (os.environ.get("PARLEY_REQUIRE_ALL") != "1" or shutil.which("go") is None):
        pytest.skip(f"no registry has {missing}, and nothing has built them here (tests/compose/images.sh, with Go)")
    assert not missing
    stack.environment["PARLEY_FORWARD_URL"] = "https://otel-collector:4317"
    try:
        stack.up_with("otel", "jaeger")
        trace_id, message_id = asyncio.run(_say_something(stack))
        jaeger = Jaeger("", f"127.0.0.1:{stack.jaeger_port}")
        wanted = {"text_message", "queue", "publish batch", "store", "commit", "deliver"}
        eventually(
            lambda: {name for _, name in jaeger.spans(trace_id)} >= wanted,
            timeout_s=ARRIVES_S,
            why=f"of {message_id} not all of {wanted} in Jaeger",
        )
        services = {instance.partition("-")[0] for instance, _ in jaeger.spans(trace_id)}
        assert services == {"edge", "rooms"}
        look = (
            "import urllib.request; "
            "print(urllib.request.urlopen('http://otel-collector:9464/metrics', timeout=5).read().decode())"
        )
        eventually(
            lambda: 'instance="rooms-2"' in docker("exec", stack.container("metrics"), "python", "-c", look),
            timeout_s=ARRIVES_S,
            why="the collector has no metrics for Prometheus",
        )
        assert set(stack.network("traces")["Containers"]) == {
            stack.container(service) for service in ("metrics", "otel-collector", "jaeger")
        }
        _is_locked_up(stack)
    finally:
        del stack.environment["PARLEY_FORWARD_URL"]


def _is_locked_up(stack: Compose) -> None:
    for name, details in stack.containers().items():
        host = details["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
    held = docker("exec", stack.container("metrics"), "ls", "/run/secrets/parley").split()
    assert sorted(held) == ["ca.pem", "certificate.pem", "key.pem", "storage-ca.pem"]
