"""What operators see and change at any process: since when it runs, what it uses, how much it logs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parley.process.v1 import process_pb2, process_pb2_grpc

from services.common import logs
from services.common.errors import ParleyError
from services.common.identity import peer_identity
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE: Final = "parley.process.v1.ProcessAdminService"

_STATM: Final = Path("/proc/self/statm")
_log = logs.get_logger(__name__)


class ProcessAdminServicer(process_pb2_grpc.ProcessAdminServiceServicer):
    """`parley.process.v1.ProcessAdminService` of the process called `name`; to be made when the process starts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started_at_ms = int(time.time() * 1_000)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves it."""
        process_pb2_grpc.add_ProcessAdminServiceServicer_to_server(self, server)

    async def GetProcess(  # noqa: N802
        self, request: process_pb2.GetProcessRequest, context: Context
    ) -> process_pb2.GetProcessResponse:
        """See the proto."""
        return process_pb2.GetProcessResponse(process=self._process())

    async def SetLogLevel(  # noqa: N802
        self, request: process_pb2.SetLogLevelRequest, context: Context
    ) -> process_pb2.SetLogLevelResponse:
        """See the proto."""
        before = logs.current_level()
        try:
            logs.set_level(request.log_level)
        except ValueError as error:
            raise ParleyError(ErrorCode.BAD_REQUEST, str(error)) from None
        operator = str(peer_identity(context))
        # Critical, so that it is logged at whatever level: the reader must know why lines begin or end here.
        _log.critical("log level changed", before=before, now=request.log_level, operator=operator)
        return process_pb2.SetLogLevelResponse(process=self._process())

    def _process(self) -> process_pb2.Process:
        return process_pb2.Process(
            name=self._name,
            pid=os.getpid(),
            started_at_ms=self._started_at_ms,
            cpu_s=time.process_time(),
            resident_bytes=_resident_bytes(),
            log_level=logs.current_level(),
        )


def _resident_bytes() -> int:
    """Memory in RAM; 0 where the system has no /proc."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
