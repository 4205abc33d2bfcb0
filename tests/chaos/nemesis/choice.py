"""Which faults a run can have: what was asked for, as far as this stack and this machine allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.nemesis.faults import Clock, Fault, Kill, Network, Pause, Rolling, ServerFault, Storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.nemesis.processes import Processes
    from tests.chaos.nemesis.proxy import Breakable
    from tests.chaos.nemesis.servers import Server
    from tests.chaos.shim.control import Control

PROCESS_KINDS = ("kill", "restart", "rolling", "pause")
NETWORK_KINDS = ("cut", "reset", "delay", "blackhole", "refuse")
SHIM_KINDS = ("disk-full", "sync-fails", "clock")
SERVER_KINDS = ("server-kill", "server-restart", "server-pause")
KINDS = (*PROCESS_KINDS, *NETWORK_KINDS, *SHIM_KINDS, *SERVER_KINDS)


def parse(text: str) -> frozenset[str]:
    """`none`, `all`, or names with commas between. Raises ValueError, naming the one that does not exist."""
    if text == "none":
        return frozenset()
    if text == "all":
        return frozenset(KINDS)
    kinds = frozenset(text.split(","))
    for kind in kinds - set(KINDS):
        raise ValueError(f"{kind!r} is no fault; there are: {', '.join(KINDS)}")
    return kinds


def choose(
    kinds: Iterable[str],
    *,
    processes: Processes | None,
    proxies: Mapping[str, Breakable],
    control: Control | None,
    servers: Sequence[Server],
) -> list[Fault]:
    """The faults of these kinds for everything that there is. Without `processes` only the network can fail."""
    faults: list[Fault] = []
    for kind in kinds:
        if kind == "rolling" and processes is not None:
            faults.append(Rolling(processes))
        elif kind in PROCESS_KINDS and processes is not None:
            names = sorted(processes.read())
            faults += [Pause(name, processes) if kind == "pause" else Kill(kind, name, processes) for name in names]
        elif kind in NETWORK_KINDS:
            faults += [Network(kind, name, proxy) for name, proxy in proxies.items()]
            faults += [Network(kind, server.name, server.proxy) for server in servers]
        elif kind == "clock" and control is not None:
            faults.append(Clock(control))
        elif kind in SHIM_KINDS and control is not None:
            faults += [Storage(kind, service, control) for service in ("rooms", "auth")]
            if kind == "disk-full":  # our servers make no syncs: nothing but their processes is killed
                faults += [Storage(kind, one.name, control, one) for one in servers if one.name == "postgres"]
        elif kind in SERVER_KINDS:
            faults += [ServerFault(kind, server) for server in servers]
    return faults
