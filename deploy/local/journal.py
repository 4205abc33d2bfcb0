"""What the supervisor has to tell: to the person at the terminal, and into the log that the services share."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from services.common.log_file import LogFile

if TYPE_CHECKING:
    from pathlib import Path


class Journal:
    """Writes each line to stderr, and as a JSON event into `path`."""

    def __init__(self, path: Path) -> None:
        self._file = LogFile(path)

    def say(self, line: str) -> None:
        """Takes one line of text."""
        with contextlib.suppress(OSError):  # the terminal may be gone; the stack is not
            print(f"parley: {line}", file=sys.stderr, flush=True)
        event = {"ts": datetime.now(UTC).isoformat(), "level": "info", "service": "stack", "event": line}
        self._file.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
