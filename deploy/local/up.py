"""`parley up`: prepares a home, runs the stack in it, and ends it when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local import assertion_keys, certificates, configuration, journal, lock, plan, ports, stack_file
from deploy.local.failures import StartError
from deploy.local.layout import Layout
from deploy.local.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from deploy.local.options import Options

LOCAL_ADMIN = "local"  # the identity of `parley admin` on this machine
OPEN_FILES = 65_536  # one per connection; the usual 1,024 would be what limits an edge
# `timeout` and terminals send a signal to the process and to its group: that is one wish, not two.
IMPATIENT_S = 1.0
RESTART_SIGNAL = signal.SIGUSR1  # SIGHUP is what a terminal sends when it is closed
RENEW_CHECK_S = 12 * 3_600.0  # certificates are made anew a month before they end
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(options: Options) -> int:
    """Runs the stack until SIGTERM, SIGINT or SIGHUP. Returns 0; raises StartError when it cannot start."""
    os.umask(0o077)
    _allow_many_connections()
    layout = Layout(options.home)
    try:
        layout.create()
        home_lock = lock.acquire(layout.lock_file, home=options.home)
    except OSError as error:
        raise StartError(f"--home {options.home}: {error}") from error
    try:
        if layout.restore_mark.exists():
            raise StartError(
                f"--home {options.home}: a restore was cut off; run `parley restore` again, with --overwrite"
            )
        layout.remove_stale()
        asyncio.run(_run(options, layout, home_lock))
    finally:
        layout.remove_stale()
        home_lock.release()
    return 0


async def _run(options: Options, layout: Layout, home_lock: lock.HomeLock) -> None:
    paths = _make_identities(options, layout)
    specs = plan.make(options, layout, paths, ports.PortPicker())
    configuration.check(specs, options.config)

    def write_stack_file(entries: list[stack_file.Entry]) -> None:
        stack_file.write(layout.stack_file, client_ca=paths.client_ca, grpc_ca=paths.grpc_ca, entries=entries)
        stack_file.write_targets(layout.prometheus_targets, entries)

    say = journal.Journal(layout.server_log).say
    supervisor = Supervisor(specs, lock=home_lock.descriptor, say=say, write_stack_file=write_stack_file)
    stop = _stop_event(then=supervisor.kill)
    restart = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(RESTART_SIGNAL, restart.set)
    try:
        await _until(stop, _serve(supervisor, options, layout, say, restart))
    finally:
        await supervisor.stop()


def _allow_many_connections() -> None:
    """Raises the limit of open files, which edges inherit, as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _make_identities(options: Options, layout: Layout) -> certificates.Paths:
    """Certificates, made where they are missing. (The pepper is made by auth, which knows whether it may be.)"""
    try:
        paths = certificates.ensure_stack(layout.certificates, hosts=(options.host,))
        certificates.make_admin(layout.certificates, LOCAL_ADMIN)
        assertion_keys.ensure(layout.certificates)
    except (OSError, ValueError) as error:
        raise StartError(f"certificates: {error}") from error
    return paths


async def _serve(
    supervisor: Supervisor, options: Options, layout: Layout, say: Callable[[str], None], restart: asyncio.Event
) -> None:
    await supervisor.start()
    say("all processes serve")
    with contextlib.suppress(OSError):  # nobody reads it any more; the stack serves all the same
        print(ready_line(options), flush=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.watch(), name="watch")
        tasks.create_task(_restart_when_asked(supervisor, say, restart), name="restarts")
        tasks.create_task(_renew_when_due(options, layout, say), name="certificates")


async def _restart_when_asked(supervisor: Supervisor, say: Callable[[str], None], asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        say("restarting all processes, one after the other")
        say("all processes are restarted" if await supervisor.restart() else "the restart is given up")


async def _renew_when_due(options: Options, layout: Layout, say: Callable[[str], None]) -> None:
    """A stack that runs for a year must not run into the end of its certificates; the services read new ones."""
    while True:
        await asyncio.sleep(RENEW_CHECK_S)
        try:
            await asyncio.to_thread(_make_identities, options, layout)
        except StartError as error:
            say(str(error))


async def _until(stop: asyncio.Event, work: Coroutine[object, object, None]) -> None:
    """Runs `work` until `stop` is set or it fails."""
    tasks = {asyncio.create_task(work, name="serve"), asyncio.create_task(_wait(stop), name="stop")}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


def ready_line(options: Options) -> str:
    """What a person needs next, and what programs wait for."""
    address = ports.join(options.host, options.port)
    more = f" (and {options.edges - 1} more)" if options.edges > 1 else ""
    where = "" if options.home == Path.cwd() else f" --home {shlex.quote(str(options.home))}"
    return f"ready on {address}{more}; to chat, in another terminal: {_command()} chat{where}; Ctrl-C ends it"


def _command() -> str:
    """How this command was called, where just its name would not be found."""
    return sys.argv[0] if Path(sys.argv[0]).name == "parley" and shutil.which("parley") is None else "parley"


def _stop_event(*, then: Callable[[], None]) -> asyncio.Event:
    """An event that the first signal sets; another one, later, means: now."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked_at = 0.0

    def on_signal() -> None:
        nonlocal asked_at
        if not stop.is_set():
            asked_at = loop.time()
            stop.set()
        elif loop.time() - asked_at >= IMPATIENT_S:
            then()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    return stop
