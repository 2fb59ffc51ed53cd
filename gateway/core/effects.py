"""What a connection decided: for its shell to carry out, in order. Pure."""

from __future__ import annotations

from typing import NamedTuple

from .head import Head
from .upload import Spool


class Dispatch(NamedTuple):
    """A proper and whole request, to be answered once. A spool is now the gateway's to close."""

    head: Head
    body: bytes | Spool


class Refused(NamedTuple):
    """What came broke a rule; the answer, of so many bytes without its head, follows. `head`: if that was read."""

    status: int
    size: int
    request_id: str
    head: Head | None


class Write(NamedTuple):
    data: bytes


class Close(NamedTuple):
    """The last effect: send what was written, then that this was all, drop what comes, be gone `within` seconds.
    0: be gone at once, with what has not left: who did not take it in time would keep it in memory for ever.
    """

    within: float = 0.0


class Reset(NamedTuple):
    """In place of Close: be gone at once, and in such a way that nobody takes it for an end."""


class Wrong(NamedTuple):
    """The application's answer has begun, and is not what it said: it ends here."""

    sentence: str


class Came(NamedTuple):
    """Whole messages of a WebSocket, in their order (core/websocket.py)."""

    items: list[str | bytes]


class Ended(NamedTuple):
    """A WebSocket is over, and not because we said so: the client's code, that of the rule it broke, or 1006."""

    code: int
    reason: str


class Asked(NamedTuple):
    """A proper and whole request, to be answered once. A spool is now the gateway's to close."""

    stream: int
    head: Head
    body: bytes | Spool


class Rebuffed(NamedTuple):
    """What came on this stream was refused, and answered."""

    stream: int
    refused: Refused


class Failed(NamedTuple):
    """The application's answer on this stream has begun, and is not what it said: it has ended."""

    stream: int
    wrong: Wrong


class Gone(NamedTuple):
    """Nobody waits for the answer on this stream."""

    stream: int


Effect = Dispatch | Refused | Write | Close | Reset | Wrong | Came | Ended  # of HTTP/1 and WebSockets
StreamEffect = Asked | Rebuffed | Failed | Gone | Write | Close | Reset  # of HTTP/2
