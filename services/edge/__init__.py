"""The edge: TLS, the client protocol, quality of service, fan-out."""
