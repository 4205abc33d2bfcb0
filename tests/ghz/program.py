"""`parley ghz`: reads the settings, finds the method, connects, runs, writes the report."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

FAILED = 1


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 when the run ended and its report is written, whatever the calls' statuses were."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines say less than the report
    import grpc

    from tests.ghz import calls, engine, formats, methods, report, settings
    from tests.ghz.durations import SECOND_NS
    from tests.ghz.payloads import Payloads

    channels: list[grpc.Channel] = []
    try:
        asked = settings.read(sys.argv[1:] if argv is None else argv)
        channels += [calls.open_channel(asked) for _ in range(asked.connections)]
        try:
            grpc.channel_ready_future(channels[0]).result(timeout=asked.connect_timeout / SECOND_NS)
        except grpc.FutureTimeoutError:
            raise settings.SettingsError(
                f"host: no connection to {asked.host} within {asked.connect_timeout / SECOND_NS:g} s "
                "(is it up, and do cacert, cert, key and cname fit?)"
            ) from None
        payloads = Payloads(asked, methods.find(asked, channels[0]))
        caller = calls.Caller(asked, payloads, channels)

        def close() -> None:
            for channel in channels:
                channel.close()

        run = engine.Engine(asked, caller, time=engine.RealTime(), close=close)
        run.run()
        made = report.make(
            asked, run.outcomes, reason=run.reason, total_ns=run.total_ns, now=datetime.now(UTC).astimezone()
        )
        _write(formats.render(made, asked.format), asked.output)
    except (settings.SettingsError, grpc.RpcError, OSError) as error:
        detail = error.details() if isinstance(error, grpc.Call) else error
        print(f"parley ghz: {detail}", file=sys.stderr)
        return FAILED
    finally:
        for channel in channels:
            channel.close()
    return 0


def _write(text: str, output: str) -> None:
    if output:
        Path(output).write_text(text)
    else:
        sys.stdout.write(text)
