"""The client protocol without I/O: bytes in, typed requests out, and back."""
