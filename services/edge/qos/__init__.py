"""Quality of service: which request goes next, and which is refused."""
