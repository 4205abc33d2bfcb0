"""What a stack withstands, measured: `python -m tests.security.hardening`."""
