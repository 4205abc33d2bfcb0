"""Starts the auth service: `python -m services.auth [--config FILE]`. Wires, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from parley.auth.v1 import auth_pb2_grpc

from services.auth.accounts import Accounts
from services.auth.admin_servicer import AuthAdminServicer
from services.auth.assertions import open_assertions
from services.auth.config import AuthConfig
from services.auth.hash_pool import HashPool
from services.auth.pepper import open_scheme
from services.auth.servicer import AuthServicer
from services.auth.sessions import Sessions
from services.auth.sharing import open_sharing
from services.auth.spare_time import SpareTime, patience_s
from services.auth.store import SqlStore
from services.auth.sweeper import Sweeper
from services.common.clock import SystemClock
from services.common.config import load_from_command_line
from services.common.db import Database, migrate
from services.common.process import Stop, run, write_ready
from services.common.rpc_server import RpcServer
from services.common.tasks import TaskSet
from services.common.telemetry import Telemetry

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_ALLOW: Final = {
    "parley.auth.v1.AuthService": frozenset({"edge"}),
    "parley.auth.v1.AuthAdminService": frozenset({"admin"}),
}


async def serve(config: AuthConfig, stop: Stop) -> None:
    """Builds the service, serves until `stop`, and takes it down in order."""
    clock = SystemClock()
    migrate(config.storage_url, _MIGRATIONS, access=config.storage_access)
    telemetry = Telemetry(config, "auth")
    reads = telemetry.counters.counter("parley.auth.database.reads", "1", "Reads of the database.")
    database = Database(config.storage_url, access=config.storage_access, on_read=reads.add)
    tasks = TaskSet()
    sharing = open_sharing(config, clock)
    pool = HashPool(workers=config.hash_thread_count, queue_max=config.hash_queue_max, clock=clock)
    spare_time = SpareTime(processes=config.spare_time_processes, patience_s=patience_s(config.bcrypt_rounds))
    try:
        store = SqlStore(database)
        accounts = Accounts(
            store=store,
            scheme=await open_scheme(config, store, spare_time),
            pool=pool,
            throttle=sharing.throttle,
            clock=clock,
            tasks=tasks,
        )
        sessions = Sessions(
            store=store,
            revocations=sharing.revocations,
            throttle=sharing.throttle,
            policy=config.session_policy,
            clock=clock,
            tasks=tasks,
        )
        servicer = AuthServicer(
            accounts=accounts,
            sessions=sessions,
            assertions=open_assertions(config, store=store, clock=clock),
            clock=clock,
            counters=telemetry.counters,
        )
        sweeper = Sweeper(accounts=accounts, sessions=sessions, clock=clock)
        await sweeper.sweep()  # leases are extended before the first login could find one over
        tasks.spawn(sweeper.run(), name="sweeper")
        sharing.start(tasks)

        server = RpcServer(config, allow=_ALLOW)
        auth_pb2_grpc.add_AuthServiceServicer_to_server(servicer, server.grpc)
        admin = AuthAdminServicer(store=store, accounts=accounts, sessions=sessions, clock=clock)
        auth_pb2_grpc.add_AuthAdminServiceServicer_to_server(admin, server.grpc)
        prometheus = telemetry.start()
        await server.start()
        write_ready(config, {"grpc": server.address, "prometheus": prometheus})
        await stop.wait()
        sharing.revocations.close()
        await server.stop()
    finally:
        await tasks.close()
        pool.close()
        spare_time.close()
        await sharing.close()
        await database.close()
        await telemetry.shutdown()


if __name__ == "__main__":
    _config = load_from_command_line(AuthConfig, service="auth")
    run(lambda stop: serve(_config, stop), service="auth", config=_config)
