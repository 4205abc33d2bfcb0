"""`parley admin` in a compose stack: finds the processes by their names in the network, then is that command.

    docker compose run --rm operator accounts list

What `run/stack.json` says of a stack on one machine, the network's name server knows here: a name with several
addresses is several processes.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.local import stack_file
from deploy.local.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROCESSES: Final = "PARLEY_OPERATOR_PROCESSES"
"""service=host:port, with commas between them."""


def find(places: str, resolve: Callable[[str], list[str]]) -> list[stack_file.Entry]:
    """The processes at these places, numbered by service. Hosts that have no address are down, and left out."""
    numbers: Counter[str] = Counter()
    entries = []
    for place in filter(None, (part.strip() for part in places.split(","))):
        service, _, address = place.partition("=")
        host, _, port = address.rpartition(":")
        if not service or not host or not port.isdigit():
            raise ValueError(f"{PROCESSES}: service=host:port, not {place!r}")
        for found in resolve(host):
            numbers[service] += 1
            name = f"{service}-{numbers[service]}"
            entries.append(stack_file.Entry(name=name, pid=0, grpc=f"{found}:{port}", prometheus=""))
    return entries


def addresses(host: str) -> list[str]:
    """A name's IPv4 addresses in order; none where it has none."""
    try:
        return sorted(socket.gethostbyname_ex(host)[2], key=socket.inet_aton)
    except OSError:
        return []


def main(argv: Sequence[str]) -> int:
    """The status of `parley admin`."""
    from client.admin import main as admin

    layout = Layout(Path.cwd())
    try:
        entries = find(os.environ.get(PROCESSES, ""), addresses)
    except ValueError as error:
        print(f"operator: {error}", file=sys.stderr)
        return 2
    certificates = layout.certificates
    stack_file.write(
        layout.stack_file,
        client_ca=certificates / "client-ca-cert.pem",
        grpc_ca=certificates / "grpc-ca-cert.pem",
        entries=entries,
    )
    return admin(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
