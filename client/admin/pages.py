"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from client.admin.report import Row, as_dict

PAGE = 500
"""Entries of a page: some 100 KB, far below what a gRPC message may have."""


class Page(Protocol):
    """What every paged response has; the token is empty on the last page."""

    @property
    def next_page_token(self) -> str:
        """Asks for the page behind this one."""
        ...


P = TypeVar("P", bound=Page)


def read_all(fetch: Callable[[int, str], P], entries: Callable[[P], Iterable[Message]], *, limit: int) -> list[Row]:
    """The first `limit` entries of a list; `fetch` takes a page's size and token."""
    rows: list[Row] = []
    token = ""
    while len(rows) < limit:
        page = fetch(min(PAGE, limit - len(rows)), token)
        rows.extend(as_dict(entry) for entry in entries(page))
        token = page.next_page_token
        if not token:
            break
    return rows
