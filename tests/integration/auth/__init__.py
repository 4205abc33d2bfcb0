"""The auth service over real mutual TLS."""
