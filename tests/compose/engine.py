"""The container engine and a compose stack of the tests' own, as a person has them: through commands."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.helpers.stack import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
IMAGES = ("python:3.11-slim-bookworm", "postgres:15-bookworm", "redis:7-bookworm", "haproxy:2.6-bookworm")
PROFILES = ("prometheus", "otel", "jaeger", "tools")
START_S = 420.0  # the first build installs all dependencies
COMMAND_S = 120.0


class Compose:
    """One project. `home` keeps the authority that clients trust it by."""

    def __init__(self, home: Path) -> None:
        self.project = f"parley-test-{secrets.token_hex(3)}"
        self.port = free_ports()
        self.prometheus_port = free_ports()
        self.jaeger_port = free_ports()
        self.ca = home / "client-ca.pem"
        self.said = ""  # by `make compose-up`
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "PARLEY_PORT": str(self.port),
            "PARLEY_PROMETHEUS_PORT": str(self.prometheus_port),
            "PARLEY_JAEGER_PORT": str(self.jaeger_port),
            "PARLEY_CLIENT_CA_FILE": str(self.ca),
            "PARLEY_IMAGE": "parley:test",
        }
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        self.command = ["docker", "compose"] if plugin else ["docker-compose"]

    def up(self, *arguments: str) -> str:
        """`make compose-up`; what it said."""
        return self._run(["make", "-s", "compose-up", f"COMPOSE_ARGS={' '.join(arguments)}"], ROOT, START_S)

    def up_with(self, *profiles: str) -> None:
        """docker compose --profile … up -d"""
        chosen = [part for profile in profiles for part in ("--profile", profile)]
        self._run([*self.command, *chosen, "up", "-d"], DEPLOY, COMMAND_S)

    def down(self) -> None:
        """Removes containers, networks and volumes."""
        every = [part for profile in PROFILES for part in ("--profile", profile)]
        self._run([*self.command, *every, "down", "--volumes", "--remove-orphans"], DEPLOY, COMMAND_S)

    def compose(self, *arguments: str) -> str:
        """docker compose …; its output."""
        return self._run([*self.command, *arguments], DEPLOY, COMMAND_S)

    def container(self, service: str, number: int = 1) -> str:
        """The id of a container."""
        ids = docker(
            "ps", "-aq", "--no-trunc",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
            "--filter", f"label=com.docker.compose.container-number={number}",
        ).split()  # fmt: skip
        assert len(ids) == 1, (service, number, ids)
        return ids[0]

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each running container, by service and number."""
        ids = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={self.project}").split()
        found = {}
        for details in json.loads(docker("inspect", *ids)):
            labels = details["Config"]["Labels"]
            service, number = labels["com.docker.compose.service"], labels["com.docker.compose.container-number"]
            found[f"{service}.{number}"] = details
        return found

    def network(self, name: str) -> dict[str, Any]:
        """What the engine knows of a network."""
        details: dict[str, Any] = json.loads(docker("network", "inspect", f"{self.project}_{name}"))[0]
        return details

    def health(self, service: str, number: int = 1) -> str:
        """healthy, starting or unhealthy; `down` where it does not run."""
        state = json.loads(docker("inspect", "--format", "{{json .State}}", self.container(service, number)))
        return str(state["Health"]["Status"]) if state["Running"] else "down"

    def haproxy_page(self, path: str = "/metrics") -> str:
        """What haproxy tells Prometheus."""
        ask = f"exec 3<>/dev/tcp/127.0.0.1/8404; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        return docker("exec", self.container("haproxy"), "bash", "-c", ask)

    def edges_up(self) -> int:
        """How many edges haproxy sends clients to."""
        return sum(
            line.startswith("haproxy_server_status{") and 'state="UP"' in line and line.endswith(" 1")
            for line in self.haproxy_page().splitlines()
        )

    def _run(self, command: list[str], folder: Path, timeout_s: float) -> str:
        done = subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def docker(*arguments: str) -> str:
    """docker …; its output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, f"docker {arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def has_image(image: str) -> bool:
    """Whether the engine has the image, or a registry gives it."""
    return any(
        subprocess.run(["docker", *command, image], capture_output=True).returncode == 0
        for command in (["image", "inspect"], ["pull", "--quiet"])
    )


def is_there() -> bool:
    """Whether there is an engine, and compose."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0
