"""The real HAProxy with the configuration that is shipped, in front of a stack's edges on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import urllib.request
from typing import TYPE_CHECKING

from tests.helpers.servers import find_program, free_port
from tests.helpers.stack import ROOT, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.stack import Stack


class HAProxy:
    """A running HAProxy; `port` is where clients connect."""

    def __init__(self, stack: Stack) -> None:
        self.port = free_port()
        self._http = f"127.0.0.1:{free_port()}"
        edges = {f"PARLEY_EDGE_{n + 1}": f"127.0.0.1:{stack.port + n}" for n in range(stack.edges)}
        addresses = {"PARLEY_BIND": f"127.0.0.1:{self.port}", "PARLEY_HAPROXY_HTTP": self._http}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [find_program("haproxy"), "-f", str(ROOT / "deploy" / "config" / "haproxy.cfg")],
            env={**os.environ, **edges, **addresses},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def edges_up(self) -> set[str]:
        """The names of the edges that its checks find well."""
        up = 'haproxy_server_status{proxy="edges",server="'
        lines = self._metrics().splitlines()
        return {
            line[len(up) :].partition('"')[0]
            for line in lines
            if line.startswith(up) and 'state="UP"' in line and line.endswith(" 1")
        }

    def _metrics(self) -> str:
        try:
            with urllib.request.urlopen(f"http://{self._http}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return ""
        assert isinstance(text, str)
        return text

    def wait_until_up(self, *names: str) -> None:
        """Until the checks find exactly these edges well."""
        eventually(lambda: self.edges_up() == set(names), timeout_s=30, why=f"not {names}: {self.edges_up()}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self.log.close()


@contextlib.contextmanager
def haproxy_before(stack: Stack) -> Iterator[HAProxy]:
    """In front of all edges of a stack, whose `proxy_networks` must have 127.0.0.1."""
    proxy = HAProxy(stack)
    try:
        proxy.wait_until_up(*(f"edge-{n + 1}" for n in range(stack.edges)))
        yield proxy
    finally:
        proxy.close()
