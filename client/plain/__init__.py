"""The chat as a pipe: lines in, lines out."""
