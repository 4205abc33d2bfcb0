"""Classes of service: which of the four a request belongs to, and how each is treated.

The server decides the class by the type of the request. A client's ``priority`` is a wish that may only lower it:
otherwise everybody's text would be critical, and the word would mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from types import MappingProxyType
from typing import Final

TARGET_S_MAX: Final = 60.0
"""Longer than any client waits for an answer; a larger target is a slip of the pen."""

SHARE_MAX: Final = 1_000_000
"""Entries of a few hundred bytes: what a large machine can hold."""


class QosClass(IntEnum):
    """A class of service, by the number that ``priority`` has in a frame."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """The name that operators see: critical, high, normal or low."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """How a class is treated: latency target in seconds, and how many of its requests may wait (at least one)."""

    target_s: float
    share: int

    def __post_init__(self) -> None:
        if not (isfinite(self.target_s) and 0.0 <= self.target_s <= TARGET_S_MAX):
            raise ValueError(f"target_s: must be 0 to {TARGET_S_MAX:g} seconds, not {self.target_s}")
        if not 1 <= self.share <= SHARE_MAX:
            raise ValueError(f"share: must be 1 to {SHARE_MAX}, not {self.share}")


DEFAULT_SETTINGS: Final[Mapping[QosClass, ClassSettings]] = MappingProxyType(
    {
        QosClass.CRITICAL: ClassSettings(target_s=0.0, share=1024),  # heartbeats and logins: few, but of everybody
        QosClass.HIGH: ClassSettings(target_s=0.05, share=1024),  # commands: what a person waits for
        QosClass.NORMAL: ClassSettings(target_s=0.2, share=4096),  # texts: at most 64 MiB of them, at 16 KiB each
        QosClass.LOW: ClassSettings(target_s=1.0, share=512),  # pages and chunks: costly, and nobody is in a hurry
    }
)

_CLASS_OF_TYPE: Final[Mapping[str, QosClass]] = MappingProxyType(
    {
        "hello": QosClass.CRITICAL,
        "heartbeat": QosClass.CRITICAL,
        "auth_request": QosClass.CRITICAL,
        "resume": QosClass.CRITICAL,
        "logout": QosClass.CRITICAL,
        "text_message": QosClass.NORMAL,
        "history": QosClass.LOW,
        "file_ack": QosClass.LOW,
        "file_transfer": QosClass.LOW,
        "trace": QosClass.LOW,
        "trace_report": QosClass.LOW,
    }
)


def class_of(request_type: str, *, wish: int | None = None, may_raise: bool = False) -> QosClass:
    """Give the class of a request: that of its type (commands are high), or a lower one that the client wishes.

    ``may_raise`` is for the few who hold the right to be put into a higher class.
    """
    given = _CLASS_OF_TYPE.get(request_type, QosClass.HIGH)
    if wish is None or (wish >= given and not may_raise):
        return given
    return QosClass(wish)
