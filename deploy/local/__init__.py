"""`parley up`: the whole stack on one machine, in the foreground."""
