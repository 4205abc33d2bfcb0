"""Files through the edge: bytes of clients to rooms and back, in windows, and never in the way of messages."""
