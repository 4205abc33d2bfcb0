"""What runs Parley: the `parley` command, the local stack, configuration files and the stubs' generator."""
