"""The life of a service process: event loop, signals, ready file, exit status.

A service's `__main__` is `run(main, service="auth", config=config)`, where `main` builds everything, waits for the
`Stop` that it is given, and takes everything down in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import uvloop

from services.common import logs
from services.common.config import ConfigError
from services.common.errors import ParleyError
from services.common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from services.common.config import ServiceConfig

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_CONFIGURATION: Final = 2
_log = get_logger(__name__)


class Stop(asyncio.Event):
    """Set when the process has been asked to end. `is_near` is set when it will be asked soon (SIGUSR1)."""

    def __init__(self) -> None:
        super().__init__()
        self.is_near = asyncio.Event()


def run(main: Callable[[Stop], Awaitable[None]], *, service: str, config: ServiceConfig | None = None) -> NoReturn:
    """Runs `main` on uvloop until it returns, and exits: 0, or 1 when it raised, 2 when it raised ConfigError.

    SIGTERM and SIGINT set the `Stop`; a second one cancels `main`. SIGUSR1 says that they will come soon. Logs go where
    `config` says, or to stderr.
    """
    if config is None:
        logs.configure(service)
    else:
        logs.configure(config.name, level=config.log_level, file=config.log_file)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(main))
    except ConfigError as error:
        _log.critical(str(error))
        sys.exit(EXIT_BAD_CONFIGURATION)
    except ParleyError as error:  # nobody was there to be told: what the process needs to start is not there
        _log.critical(error.message)
        sys.exit(EXIT_FAILED)
    except (asyncio.CancelledError, KeyboardInterrupt):
        _log.warning("ended at once by a second signal")
        sys.exit(EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 - the last place that can say why the process ends
        _log.critical("process failed", exc_info=error)
        sys.exit(EXIT_FAILED)
    sys.exit(EXIT_OK)


async def _run(main: Callable[[Stop], Awaitable[None]]) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_failure)
    task = asyncio.current_task()
    assert task is not None

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            task.cancel()
        else:
            _log.info("stopping", signal=number.name)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGUSR1, stop.is_near.set)
    await main(stop)


def _log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaited: a defect, said once."""
    _log.error(str(context.get("message", "failure in the event loop")), exc_info=context.get("exception"))


def write_ready(config: ServiceConfig, addresses: Mapping[str, str | int]) -> None:
    """Tells whoever started the process that it serves, and where: `{"name", "pid", …addresses}` as JSON.

    The file appears whole or not at all. Without a `ready_file` in the configuration it is only logged.
    """
    ready = {"name": config.name, "pid": os.getpid(), **addresses}
    if config.ready_file is not None:
        write_atomically(config.ready_file, json.dumps(ready).encode())
    _log.info("ready", **addresses)


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces the file by one that holds `data`: a reader finds the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
