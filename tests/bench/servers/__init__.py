"""The servers that the benchmark compares: how each is started, and as much of its protocol as chatting takes."""

from __future__ import annotations

from tests.bench.server import Server
from tests.bench.servers.ejabberd import Ejabberd
from tests.bench.servers.mosquitto import Mosquitto
from tests.bench.servers.nats import Nats
from tests.bench.servers.ngircd import Ngircd
from tests.bench.servers.parley import Parley
from tests.bench.servers.redis import Redis

SERVERS: dict[str, type[Server]] = {
    server.name: server for server in (Parley, Redis, Nats, Mosquitto, Ngircd, Ejabberd)
}
"""By the name that `--only` takes, in the order of the table."""
