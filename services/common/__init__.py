"""What every service needs: configuration, identities, RPC, storage, logs, telemetry, time and tasks."""
