"""What a stranger, a user and a service may not do, as checks that run against a stack that serves."""
