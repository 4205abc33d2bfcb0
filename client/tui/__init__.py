"""The chat on a terminal: one line to type in, and everything else above it."""
