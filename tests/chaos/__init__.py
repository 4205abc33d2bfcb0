"""`parley check`: records what clients see while things break, and proves the delivery promise of that record."""
