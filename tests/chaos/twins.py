"""More processes of a running stack than `parley up` starts: a second auth instance, and an edge that is at it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.servers import free_port
from tests.helpers.stack import READY_S, ROOT, STOP_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.helpers.stack import Stack


@contextlib.contextmanager
def twin(stack: Stack, of: str, name: str, changes: Mapping[str, str] | None = None) -> Iterator[str]:
    """Another process like the one called `of`, with other settings by `changes`; its gRPC address once it serves."""
    pid, service = stack.pids()[of], of.rpartition("-")[0]
    command = [part.decode() for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if part]
    pairs = (pair.decode().partition("=") for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if pair)
    ready = stack.home / "run" / f"{name}.twin.json"
    settings = {
        "name": name,
        "listen": f"127.0.0.1:{free_port()}",
        "prometheus_listen": f"127.0.0.1:{free_port()}",
        "ready_file": str(ready),
        **(changes or {}),
    }
    environment = {key: value for key, _, value in pairs}
    environment |= {f"PARLEY_{service}_{key}".upper(): value for key, value in settings.items()}
    ready.unlink(missing_ok=True)
    with (stack.home / "logs" / f"{name}.err").open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=errors)
    try:
        eventually(
            lambda: ready.exists() or process.poll() is not None, timeout_s=READY_S, why=f"{name} does not serve"
        )
        assert process.poll() is None, (stack.home / "logs" / f"{name}.err").read_text()
        yield str(json.loads(ready.read_text())["grpc"])
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
