"""The desk of a version-1 client: files come and go in pieces of JSON."""

from __future__ import annotations

from services.edge.decisions import User
from services.edge.files.desk import Desk, FileRules, Transferring
from services.edge.files.pieces import Pieces
from services.edge.files.relay import Relay


class OldDesk(Desk):
    """A desk with what it takes for version 1."""

    def __init__(self, connection: Transferring, user: User, rules: FileRules) -> None:
        super().__init__(connection, user, rules)
        self.pieces = Pieces(self)
        self.relay = Relay(self, connection)

    def close(self) -> None:
        """The client is gone, or somebody else."""
        super().close()
        self.pieces.close()
        self.relay.close()
