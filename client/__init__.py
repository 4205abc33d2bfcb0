"""The Parley client: a library (`client.session`), and on it a terminal program, a pipe and the operators' command."""
