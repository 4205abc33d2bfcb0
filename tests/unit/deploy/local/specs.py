"""Little processes that behave, or misbehave, like services."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from deploy.local.plan import Spec

if TYPE_CHECKING:
    from pathlib import Path

# Serves: says so in its ready file, and ends on SIGTERM after noting it.
SERVES = """
import json, os, signal, sys, time
def end(*_):
    with open(os.environ["NOTES"], "a") as notes: notes.write(os.environ["NAME"] + "\\n")
    sys.exit(0)
def forewarned(*_):
    with open(os.environ["NOTES"] + ".forewarned", "a") as notes: notes.write(os.environ["NAME"] + "\\n")
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, forewarned)
path = os.environ["READY"]
with open(path + ".new", "w") as file: json.dump({"name": "x", "pid": os.getpid()}, file)
os.replace(path + ".new", path)
while True: time.sleep(60)
"""
IGNORES_SIGTERM = SERVES.replace("signal.SIGTERM, end", "signal.SIGTERM, signal.SIG_IGN")
DIES = """
import sys
print('{"level": "error", "event": "it broke"}')
print("configuration: PARLEY_X: bad", file=sys.stderr)
sys.exit(3)
"""


def make(tmp_path: Path, name: str, program: str = SERVES) -> Spec:
    ready = tmp_path / f"{name}.ready.json"
    return Spec(
        name=name,
        service=name.partition("-")[0],
        command=(sys.executable, "-I", "-c", program),
        ready_file=ready,
        grpc="127.0.0.1:1",
        prometheus="127.0.0.1:2",
        client_port=8888 if name.startswith("edge") else None,
        environment={"READY": str(ready), "NOTES": str(tmp_path / "notes"), "NAME": name},
    )
