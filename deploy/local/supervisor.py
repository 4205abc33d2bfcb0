"""Keeps the processes of a stack running: all up, then any that dies up again, then all down in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from deploy.local.backoff import Backoff
from deploy.local.child import Child
from deploy.local.failures import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from deploy.local.plan import Spec
    from deploy.local.stack_file import Entry

# What a service may take to drain (its stop_grace_s, 5) and to send its last telemetry, with room to spare.
STOP_S = 12.0


class Supervisor:
    """Runs `specs`.

    `say` takes lines for the person at the terminal; `write_stack_file` is called with what runs, each time that
    has changed.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        lock: int,
        say: Callable[[str], None],
        write_stack_file: Callable[[list[Entry]], None],
    ) -> None:
        self._specs = specs
        self._lock = lock
        self._say = say
        self._write_stack_file = write_stack_file
        self._children: dict[str, Child] = {}
        self._asked: dict[str, asyncio.Future[bool]] = {}  # restarts under way, by name: whether it serves again

    async def start(self) -> None:
        """Returns when everything serves; the edges are started when what they need does.

        Raises StartError when a process does not come up; `stop` must be called then, too.
        """
        await self._start_all([spec for spec in self._specs if not spec.is_edge])
        await self._start_all([spec for spec in self._specs if spec.is_edge])
        self._tell()

    async def watch(self) -> None:
        """Restarts what dies, until it is cancelled. Raises whatever goes wrong in the supervisor itself."""
        async with asyncio.TaskGroup() as group:
            for spec in self._specs:
                group.create_task(self._keep_alive(spec), name=f"watch {spec.name}")

    async def restart(self) -> bool:
        """Restarts all processes one after the other, each when the one before serves, while `watch` runs.

        Returns whether all did; after one that does not come back the others are left as they are.
        """
        for spec in self._specs:
            child = self._children[spec.name]
            serves = self._asked[spec.name] = asyncio.get_running_loop().create_future()
            try:
                child.terminate()
                await self._end(child)
                if not await serves:
                    return False
            finally:
                del self._asked[spec.name]
        return True

    async def stop(self) -> None:
        """Ends everything in order: what people are connected to first, what counts it last.

        Metrics is told at once, because its last graphs take a while to prepare.
        """
        for child in self._children.values():
            if child.spec.service == "metrics":
                child.forewarn()
        await self._stop_all("edge")
        await self._stop_all("auth", "rooms")
        await self._stop_all("metrics")

    def kill(self) -> None:
        """Ends everything now; `stop` then only has to collect it."""
        for child in self._children.values():
            child.kill()

    async def _start_all(self, specs: Iterable[Spec]) -> None:
        children = [await self._spawn(spec) for spec in specs]
        waits = [asyncio.create_task(child.wait_ready()) for child in children]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def _spawn(self, spec: Spec, *, in_spare_time: bool = False) -> Child:
        try:
            child = await Child.start(spec, lock=self._lock, say=self._say, in_spare_time=in_spare_time)
        except OSError as error:
            raise StartError(f"{spec.name} cannot be started: {error}") from error
        self._children[spec.name] = child
        return child

    async def _keep_alive(self, spec: Spec) -> None:
        backoff = Backoff()
        while True:
            child = self._children[spec.name]
            await child.wait()
            if (asked := self._asked.get(spec.name)) is not None and not asked.done():
                asked.set_result(await self._revive(spec))
                continue
            delay_s = backoff.delay_s(lived_s=child.lived_s)
            when = "at once" if delay_s == 0 else f"in {delay_s:g} s"
            self._say(f"{spec.name} died ({child.explain_end()}); starting it again {when}")
            await asyncio.sleep(delay_s)
            # A start takes most of a second of a core. Nobody waits for metrics, and whoever chats is not to feel that
            # it dies again and again.
            in_spare_time = spec.service == "metrics" and delay_s > 0 and not child.was_too_slow
            await self._revive(spec, in_spare_time=in_spare_time)

    async def _revive(self, spec: Spec, *, in_spare_time: bool = False) -> bool:
        """Starts a process again, and returns whether it serves. If not, `_keep_alive` sees it dead next."""
        try:
            child = await self._spawn(spec, in_spare_time=in_spare_time)
        except StartError as error:
            self._say(str(error))
            return False
        self._tell()
        try:
            await child.wait_ready()
        except StartError as error:
            self._say(str(error))
            child.kill()
            return False
        self._say(f"{spec.name} serves again")
        return True

    async def _stop_all(self, *services: str) -> None:
        children = [child for child in self._children.values() if child.spec.service in services]
        for child in children:
            child.terminate()
        await asyncio.gather(*(self._end(child) for child in children))

    async def _end(self, child: Child) -> None:
        try:
            await asyncio.wait_for(child.wait(), STOP_S)
        except TimeoutError:
            self._say(f"{child.spec.name} did not end within {STOP_S:g} s and is killed")
            child.kill()
            await child.wait()

    def _tell(self) -> None:
        """Writes down what runs. A process that was just started has the ports of the one before."""
        try:
            self._write_stack_file([child.entry for child in self._children.values()])
        except OSError as error:  # a full disk is no reason to end what works
            self._say(f"run/stack.json cannot be written: {error}")
