"""The one kind of failure that `parley up` explains in a sentence and ends with status 1."""

from __future__ import annotations


class StartError(Exception):
    """The stack cannot start; the text tells a person why and what to do."""
