"""Rooms: who is in them, who is here, and the log of what was said."""
