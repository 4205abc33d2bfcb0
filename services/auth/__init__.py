"""The auth service: accounts, passwords, sessions and their revocation."""
