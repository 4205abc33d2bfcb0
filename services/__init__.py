"""The services of Parley, and what they share."""
