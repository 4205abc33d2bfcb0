"""`parley backup` and `parley restore`: everything that people have, in one folder that proves that it is whole."""
