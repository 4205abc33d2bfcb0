"""A library that is preloaded into services under test, so that their disk and their clock can fail."""
