"""The services of Parley, and what they share.

gRPC reads its settings from the environment, once, when it is first imported. This package is imported before
anything of a service can import gRPC, so here is the one place where they can be made to hold.
"""

from __future__ import annotations

import os
import sys

# TLS 1.3 only. gRPC for Python has no setting for the lowest version; it has one for the cipher suites of TLS 1.2
# (those of 1.3 are fixed). With a suite that needs a pre-shared key, which we have none of, no handshake of 1.2 can
# succeed, whichever end asks for it. See docs/decisions/0001-tls-versions-of-grpc.md.
TLS_1_2_SUITES_THAT_NEVER_MATCH = "ECDHE-PSK-CHACHA20-POLY1305"
IS_GRPC_TLS_1_3_ONLY = (
    "grpc" not in sys.modules or os.environ.get("GRPC_SSL_CIPHER_SUITES") == TLS_1_2_SUITES_THAT_NEVER_MATCH
)
os.environ["GRPC_SSL_CIPHER_SUITES"] = TLS_1_2_SUITES_THAT_NEVER_MATCH
# gRPC's C core writes lines of its own to stderr for every failed handshake, which are not our structured logs.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# No process forks and goes on using gRPC; its handlers around fork(2) only get in the way of starting programs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
