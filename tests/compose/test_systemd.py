"""The systemd units on a machine of their own: a container in which systemd is process 1.

It is installed by the very lines of docs/operations.md, holds thousands of connections, is rebooted, and makes
up for the backup that it missed.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.compose import engine
from tests.compose.engine import ROOT, docker
from tests.helpers.stack import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.compose

BOOT_S = 60.0
INSTALL_S = 300.0
OPEN_FILES = 65_536
CONNECTIONS = 9_000
EXPOSURE_MAX = 1.7
CAP_SYS_RESOURCE = 24  # capabilities(7); without it nobody raises a hard limit
IMAGE = f"""FROM {engine.IMAGES[0]}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
 systemd systemd-sysv dbus make procps >/dev/null && rm -rf /var/lib/apt/lists/*
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
"""
PARLEY = "/opt/parley/.venv/bin/parley"
CHAT = (
    PARLEY, "chat", "127.0.0.1:8888", "--ca", "/var/lib/parley/certificates/client-ca-cert.pem", "--plain",
    "--user", "keeper", "--password-file", "/etc/keeper-password",
)  # fmt: skip
HISTORY = (*CHAT, "--room", "cellar")
SETTINGS = "[edge]\\nhandshake_timeout_s = 120.0\\n"
OPTIONS = "echo 'PARLEY_OPTIONS=--config /etc/parley/parley.toml' >/etc/parley/environment"
CROWD = f"""
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for number in range({CONNECTIONS}):
    held.append(socket.socket())
    held[-1].bind((f"127.1.{{number // 12_500}}.{{number // 50 % 250 + 1}}", 0))
    held[-1].connect(("127.0.0.1", 8888))
print("held", flush=True)
sys.stdin.readline()
"""


def rights() -> tuple[str, ...]:
    """What systemd needs of the engine: everything, or all but what this machine's own root does not have."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    if int(status["CapBnd"], 16) & 1 << CAP_SYS_RESOURCE:
        return ("--privileged",)
    return (
        "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined", "--cgroupns=private", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    )  # fmt: skip


class Machine:
    """The container."""

    def __init__(self) -> None:
        self.name = f"parley-systemd-{secrets.token_hex(3)}"
        build = ["docker", "build", "-q", "-t", "parley-systemd:test", "-"]
        done = subprocess.run(build, input=IMAGE, capture_output=True, text=True, timeout=INSTALL_S)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        docker(
            "run", "-d", "--name", self.name, "--hostname", "parley", "--tmpfs", "/run", "--tmpfs", "/run/lock",
            *rights(), "parley-systemd:test",
        )  # fmt: skip

    def run(self, *command: str, said: str = "", timeout_s: float = 60.0) -> str:
        """The command's output, as root in /opt/parley. Fails where it does."""
        done = self.attempt(*command, said=said, timeout_s=timeout_s)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}\n{self.journal()}"
        return done.stdout

    def attempt(self, *command: str, said: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", "-i", self.name, *command], input=said, capture_output=True, text=True, timeout=timeout_s
        )

    def open_files(self, pid: str) -> tuple[int, int]:
        """The soft and the hard limit of a process."""
        fields = self.run("grep", "Max open files", f"/proc/{pid}/limits").split()
        return int(fields[3]), int(fields[4])

    def journal(self) -> str:
        return self.attempt("journalctl", "--no-pager", "-n", "60").stdout

    def wait_until_booted(self) -> None:
        def has_booted() -> bool:
            return self.attempt("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

        eventually(has_booted, timeout_s=BOOT_S, why="systemd has not booted")

    def wait_until_serving(self) -> None:
        ask = "import socket; socket.create_connection(('127.0.0.1', 8888), 2)"
        eventually(lambda: self.attempt("python3", "-c", ask).returncode == 0, timeout_s=BOOT_S, why="not serving")

    def copy_checkout(self) -> None:
        """In place of `git clone`: what would be committed now."""
        files = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        archive = subprocess.run(
            ["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=files, capture_output=True, check=True
        ).stdout
        unpack = "mkdir -p /opt/parley && tar -x --no-same-owner -C /opt/parley"
        subprocess.run(["docker", "exec", "-i", self.name, "sh", "-c", unpack], input=archive, check=True)

    def reboot(self) -> None:
        docker("restart", "--time", "90", self.name)
        self.wait_until_booted()


def documented(unit: str) -> list[str]:
    """The commands of the block of docs/operations.md that installs a unit."""
    blocks = (ROOT / "docs" / "operations.md").read_text().split("```")[1::2]
    [block] = [block for block in blocks if f"systemctl daemon-reload && systemctl enable --now {unit}\n" in block]
    return block.strip().splitlines()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine on which all was done that docs/operations.md says."""
    assert engine.is_there(), "needs a container engine: docker info fails"
    assert engine.has_image(engine.IMAGES[0])
    made = Machine()
    try:
        try:
            made.start()
            made.wait_until_booted()
        except AssertionError as error:  # nothing of Parley is there yet
            pytest.skip(f"this engine runs no systemd: {error}")
        # Who says nothing is closed after five seconds, in which a slow machine does not take in a whole crowd.
        made.run("sh", "-ec", f"mkdir /etc/parley && printf '{SETTINGS}' >/etc/parley/parley.toml && {OPTIONS}")
        for line in documented("parley"):
            command = line
            if line.startswith("git clone … /opt/parley && "):
                made.copy_checkout()
                command = line.removeprefix("git clone … /opt/parley && ")
            made.run("sh", "-ec", command, timeout_s=INSTALL_S)
        made.wait_until_serving()
        made.run("sh", "-c", "echo correct horse battery >/etc/keeper-password")
        yield made
    finally:
        docker("rm", "-f", "-v", made.name)


def test_a_person_is_served(machine: Machine) -> None:
    machine.run(*CHAT, "--register", said="/create cellar\nkept for later\n")
    assert "kept for later" in machine.run(*HISTORY, said="/history\n")
    assert machine.run("systemctl", "show", "-P", "ActiveState", "parley").strip() == "active"
    hashing = machine.run("pgrep", "-f", "services.auth.bcrypt_process").split()[0]
    assert "SCHED_IDLE" in machine.run("chrt", "-p", hashing)  # so the unit's filter of system calls allows it
    owners = machine.run("sh", "-c", "ps -o user= -C python3; ps -o user= -C parley; true").split()
    assert set(owners) == {"parley"}
    assert machine.run("stat", "-c", "%a", "/var/lib/parley").strip() == "700"


def test_it_comes_back_when_it_is_killed_and_goes_when_it_is_told_to(machine: Machine) -> None:
    for victim in ("services.rooms", "parley up"):  # the second is the one that systemd watches
        [pid, *_] = machine.run("pgrep", "-f", victim).split()
        machine.run("kill", "-KILL", pid)
        eventually(lambda pid=pid: machine.attempt("kill", "-0", pid).returncode, timeout_s=BOOT_S, why="not killed")
        machine.wait_until_serving()
        eventually(lambda: "kept for later" in machine.attempt(*HISTORY, said="/history\n").stdout, timeout_s=BOOT_S)
    assert int(machine.run("systemctl", "show", "-P", "NRestarts", "parley")) == 1
    machine.run("systemctl", "restart", "parley", timeout_s=90)
    machine.wait_until_serving()
    machine.run("systemctl", "stop", "parley", timeout_s=90)
    assert machine.run("systemctl", "show", "-P", "Result", "parley").strip() == "success"
    assert machine.attempt("pgrep", "-u", "parley").stdout == ""
    machine.run("systemctl", "start", "parley")
    machine.wait_until_serving()


def test_it_holds_as_many_connections_as_it_allows(machine: Machine, tmp_path: Path) -> None:
    edge = machine.run("pgrep", "-f", "services.edge").split()[0]
    # As many as the unit says; fewer only where the machine lets nobody have more, not even its root.
    _, most = machine.open_files("1")
    wanted = min(OPEN_FILES, most)
    assert machine.open_files(edge) == (wanted, wanted)
    assert wanted > CONNECTIONS
    command = ["docker", "exec", "-i", machine.name, "python3", "-c", CROWD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        try:
            assert crowd.stdout.readline() == "held\n"

            def held() -> int:
                return int(machine.run("sh", "-c", f"ls /proc/{edge}/fd | wc -l"))

            eventually(lambda: held() > CONNECTIONS, why="it does not hold all of them")
            assert "kept for later" in machine.run(*HISTORY, said="/history\n")
        finally:
            crowd.kill()


def test_it_comes_up_again_after_a_reboot_and_makes_up_for_a_missed_backup(machine: Machine) -> None:
    for line in documented("parley-backup.timer"):
        machine.run("sh", "-ec", line)
    assert "parley-backup.service" in machine.run("systemctl", "list-timers", "--no-pager", "parley-backup.timer")
    assert machine.attempt("sh", "-c", "ls /var/lib/parley-backups/*").returncode != 0
    # As it is after two days without power. Without the delay, which is for many machines that share a disk.
    machine.run("sh", "-ec", "touch -d '2 days ago' /var/lib/systemd/timers/stamp-parley-backup.timer")
    machine.run(
        "sh", "-ec",
        "mkdir -p /etc/systemd/system/parley-backup.timer.d && "
        "printf '[Timer]\\nRandomizedDelaySec=0\\n' >/etc/systemd/system/parley-backup.timer.d/now.conf",
    )  # fmt: skip
    machine.reboot()
    machine.wait_until_serving()
    assert "kept for later" in machine.run(*HISTORY, said="/history\n")

    def backups() -> list[str]:
        return [name for name in machine.attempt("ls", "/var/lib/parley-backups").stdout.split() if ".part" not in name]

    eventually(backups, timeout_s=BOOT_S, why="no backup")
    [name] = backups()
    assert "whole" in machine.run(PARLEY, "restore", "--check", f"/var/lib/parley-backups/{name}")
    assert machine.run("systemctl", "show", "-P", "Result", "parley-backup.service").strip() == "success"


def test_systemd_rates_what_it_exposes(machine: Machine) -> None:
    for unit in ("parley.service", "parley-backup.service"):
        rating = machine.run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        assert float(rating.split(":")[1].split()[0]) <= EXPOSURE_MAX, rating
