"""The edge as a whole: its parts put together over the ports, begun and ended in order."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from services.common.clock import Clock
from services.common.counters import Counters
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.common.wire import limits
from services.edge.admission import Admission
from services.edge.balancers import Balancers
from services.edge.client_tls import ClientTls
from services.edge.client_traces import ClientTraces
from services.edge.command_spans import CommandSpans
from services.edge.config import EdgeConfig
from services.edge.connection import Connection
from services.edge.core import Core
from services.edge.decisions import Command, User
from services.edge.departures import Departures
from services.edge.directory import Directory
from services.edge.dispatch import Dispatcher
from services.edge.feed import Feed, Stream
from services.edge.feeds import Feeds
from services.edge.files.desk import FileRules, Places
from services.edge.files.handlers import FileHandlers
from services.edge.files.pace import GiveWay
from services.edge.files.ports import FilesBackend
from services.edge.handlers import Handlers
from services.edge.leases import Leases
from services.edge.listener import Listener
from services.edge.loop_watch import LoopWatch
from services.edge.ports import AuthBackend, RoomsBackend, TracesBackend
from services.edge.removals import Removals
from services.edge.replays import Replays
from services.edge.reporter import report
from services.edge.routes import Routes
from services.edge.servicer import EdgeAdminServicer
from services.edge.session import Rules
from services.edge.shared import Limits, Shared
from services.edge.sweep import Sweep
from services.edge.token_bucket import UserBuckets
from services.edge.traffic import Traffic
from services.edge.vouchers import Vouchers

_SERVER: Final = "parley"

_POLL_S: Final = 0.02
"""Draining is watched this often: it happens once, and nothing else waits for it."""

_ACCEPTED_PART: Final = 0.5
_GOODBYE_PART: Final = 0.2
_TELL_PART: Final = 0.2
"""Parts of the time for draining: what is under way, clients that read their goodbye, and telling auth and rooms."""

_REASONS: Final = frozenset({"revoked", "replaced"})

_log = get_logger(__name__)


class Edge:
    """One edge. `run` serves until it is cancelled or a part of it fails; `drain` says goodbye first."""

    def __init__(
        self,
        config: EdgeConfig,
        *,
        auth: AuthBackend,
        rooms: RoomsBackend,
        files: FilesBackend,
        traces: TracesBackend,
        open_stream: Callable[[str], Stream],
        tls: ClientTls,
        counters: Counters,
        clock: Clock,
        boot_id: str,
        routes: Routes | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._tasks = TaskSet()
        self._directory: Directory[Connection] = Directory(self._end_soon)
        self._departures = Departures(auth, rooms, clock)
        traffic = Traffic(counters)
        number = itertools.count(1).__next__
        rules = _rules(config)
        self._files = FileHandlers(_file_rules(config, files, self._tasks, traffic, clock), rules.server_info)
        self._core = Core(
            config,
            start_command=self._start_command,
            send_file=self._files.relay,
            traffic=traffic,
            number=number,
            clock=clock,
            boot_id=boot_id,
            routes=routes or Routes(config.rooms_targets),
        )
        replays = Replays(hub=self._core.hub, rooms=rooms, tasks=self._tasks, clock=clock)
        commands = partial(Handlers, auth=auth, rooms=rooms, departures=self._departures, replays=replays, clock=clock)
        client_traces = ClientTraces(self._core.wished_traces, traces)
        spans = CommandSpans(self._core.spans.sampler, clock)
        self._dispatcher = Dispatcher(commands(files=self._files.table, traces=client_traces.table), self._tasks, spans)
        shared = self._share(rules, traffic, number)
        self._listener = self._make_listener(shared, tls)
        self._feeds = self._make_feeds(rooms, open_stream, boot_id)
        self._leases = Leases(
            auth, session_ids=lambda: self._directory.session_ids, on_ended=self._end_session, clock=clock
        )
        self._vouchers = Vouchers(auth, users=lambda: [user for user, _ in self._directory.sessions()], clock=clock)
        self._sweep = Sweep(
            directory=self._directory, publisher=self._core.publisher, buckets=shared.buckets, clock=clock
        )
        self._loop_watch = LoopWatch(counters, clock)
        self.servicer = EdgeAdminServicer(
            directory=self._directory,
            pump=self._core.pump,
            drain=self.drain,
            sampler=self._core.spans.sampler,
            clock=clock,
        )
        self._tls = tls
        tls.report(counters)
        report(counters, admission=shared.admission, directory=self._directory, core=self._core)

    def start(self) -> int:
        """Listen for clients, and return the port. Raises OSError."""
        port = self._listener.start()
        self._tasks.spawn(self._loop_watch.run(), name="loop watch")  # before this, nobody was there to be held up
        return port

    async def run(self) -> None:
        """Work until cancelled; raises what a vital part failed with."""
        async with asyncio.TaskGroup() as vital:
            vital.create_task(self._feeds.run(), name="feeds")
            vital.create_task(self._leases.run(), name="leases")
            vital.create_task(self._vouchers.run(), name="vouchers")
            vital.create_task(self._departures.run(), name="departures")
            vital.create_task(self._sweep.run(), name="sweep")
            vital.create_task(self._tls.watch(self._clock), name="certificates for clients")
            vital.create_task(self._files.learn_limits(), name="limits of files")

    def rooms_silent(self, target: str) -> None:
        """A rooms instance does not answer: what is to be served by it is served by another, where there is one."""
        self._feeds.cut(target)

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more, finish what was accepted, say goodbye, and tell auth and rooms.

        To be called while `run` still works; takes at most `grace_s`.
        """
        self._listener.close()
        for connection in self._directory:
            connection.stop_reading()
        await self._within(grace_s * _ACCEPTED_PART, lambda: not self._core.publisher and self._core.pump.is_idle)
        self._dispatcher.abandon()  # so that what has no answer when the goodbye comes was not carried out
        spread_ms = int(self._config.drain_spread_s * 1_000)
        for connection in self._directory:
            connection.close("draining", reconnect_after_ms=random.randint(0, spread_ms))  # noqa: S311 - spreads load
        await self._within(grace_s * _GOODBYE_PART, lambda: not self._directory.open_count)
        await self._within(grace_s * _TELL_PART, lambda: self._departures.is_idle)

    async def close(self) -> None:
        """End everything at once."""
        self._listener.abort()
        await self._tasks.close()

    async def _within(self, seconds: float, is_done: Callable[[], bool]) -> None:
        until = self._clock.monotonic() + seconds
        while not is_done() and self._clock.monotonic() < until:
            await self._clock.sleep(_POLL_S)

    def _make_feeds(self, rooms: RoomsBackend, open_stream: Callable[[str], Stream], boot_id: str) -> Feeds:
        removals = Removals(hub=self._core.hub, rooms=rooms, tasks=self._tasks, clock=self._clock)
        make_feed = partial(
            Feed,
            edge_name=self._config.name,
            boot_id=boot_id,
            present=self._present,
            on_removed=removals.removed,
            clock=self._clock,
            spans=self._core.spans,
        )
        return Feeds(self._core, self._config.rooms_targets, make_feed, open_stream)

    def _share(self, rules: Rules, traffic: Traffic, number: Callable[[], int]) -> Shared:
        config = self._config
        return Shared(
            rules=rules,
            limits=Limits(
                idle_s=config.idle_timeout_s,
                login_s=config.login_timeout_s,
                partial_frame_s=config.partial_frame_timeout_s,
                stuck_s=config.stuck_timeout_s,
                outbox_bytes_max=config.outbox_bytes_max,
            ),
            clock=self._clock,
            hub=self._core.hub,
            pump=self._core.pump,
            flusher=self._core.flusher,
            directory=self._directory,
            admission=Admission(
                connections_max=config.connections_max,
                anonymous_per_address_max=config.anonymous_per_address_max,
                is_busy=lambda connection: connection.is_signing_in,
            ),
            departures=self._departures,
            buckets=UserBuckets(rate=config.text_rate, burst=config.text_burst),
            traffic=traffic,
            spans=self._core.spans,
            number=number,
            call_soon=self._core.call_soon,
        )

    def _make_listener(self, shared: Shared, tls: ClientTls) -> Listener:
        return Listener(
            shared,
            address=self._config.client_listen,
            tls=tls,
            handshake_s=self._config.handshake_timeout_s,
            balancers=Balancers(self._config.proxy_networks),
            tasks=self._tasks,
        )

    def _start_command(self, command: Command, done: Callable[[], None]) -> None:
        self._dispatcher.start(command, done)  # made after the core that starts it

    def _present(self) -> Iterable[tuple[User, Iterable[str]]]:
        return [(user, connection.room_ids) for user, connection in self._directory.sessions()]

    def _end_soon(self, session_id: str, reason: str) -> None:
        """Once the client has been told that it is in."""
        self._core.call_soon(self._end_session, session_id, reason)

    def _end_session(self, session_id: str, reason: str) -> None:
        connection = self._directory.of_session(session_id)
        if connection is None:
            self._directory.ended_early(session_id, reason)
        else:
            _log.info("session ended by auth", connection_id=connection.id, reason=reason)
            connection.close(reason if reason in _REASONS else "revoked")


def _rules(config: EdgeConfig) -> Rules:
    return Rules(
        server_info={
            "protocol": limits.PROTOCOL_VERSION,
            "server": _SERVER,
            "heartbeat_s": config.heartbeat_s,
            "idle_timeout_s": config.idle_timeout_s,
            "max_text_chars": limits.MAX_TEXT_CHARS,
            "max_frame_bytes": limits.MAX_JSON_BYTES,
            "chunk_bytes": limits.MAX_CHUNK_BYTES,
            "file_window_bytes": config.file_window_bytes,
            "max_file_bytes": config.max_file_bytes,
            "tracing": config.otlp_endpoint is not None,
        },
        command_rate=config.command_rate,
        command_burst=config.command_burst,
        faults_per_minute=config.faulty_frames_per_minute,
        held_max=config.held_frames_max,
        texts_max=config.texts_per_connection_max,
    )


def _file_rules(config: EdgeConfig, backend: FilesBackend, tasks: TaskSet, traffic: Traffic, clock: Clock) -> FileRules:
    def places() -> Places:
        return Places(per_connection=config.files_per_connection_max, in_all=config.files_max)

    return FileRules(
        backend=backend,
        tasks=tasks,
        clock=clock,
        window_bytes=config.file_window_bytes,
        idle_s=config.file_idle_timeout_s,
        uploads=places(),
        downloads=places(),
        give_way=GiveWay(lambda: traffic.texts_received.value + traffic.delivered.value, clock),
        bytes_in=traffic.file_bytes_in,
        bytes_out=traffic.file_bytes_out,
    )
