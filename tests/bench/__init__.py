"""Measures Parley beside real servers under the same load; `make bench` runs it."""
