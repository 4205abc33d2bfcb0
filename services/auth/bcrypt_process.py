"""The program that hashes in spare time: `python -m services.auth.bcrypt_process`, started by `spare_time`.

For each line "PASSWORD SALT" on its standard input, in bytes that bcrypt takes, it writes the line of the digest. It
takes only the CPU time that nobody else wants (SCHED_IDLE, sched(7)), and ends when its input does.
"""

from __future__ import annotations

import os
import signal
import sys

import bcrypt


def main() -> None:
    """Until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which closes our input when it is done
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    answers = sys.stdout.buffer
    for line in sys.stdin.buffer:
        password, salt = line.split()
        answers.write(bcrypt.hashpw(password, salt) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
