"""The nemesis: breaks one thing after the other, sometimes two at once, and mends everything again."""
