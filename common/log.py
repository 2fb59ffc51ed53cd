"""What a master or an agent tells its operator: lines on stderr."""

from __future__ import annotations

import os
import select

LINE_MAX = 4096  # bytes: what a pipe takes at once when it takes anything

_dropped = 0  # lines since the last one that was written


def note(text: str) -> None:
    """Writes lines to stderr; never raises and never waits. A full disk, or a pipe that nobody reads, must not stop
    what works: what cannot be written is dropped and counted.

    It writes to the descriptor itself: `sys.stderr` would keep what failed, and fail with it again at the next line and
    at the exit.
    """
    global _dropped
    for line in text.splitlines():
        if not _has_room():
            _dropped += 1
            continue
        if _dropped:
            _write(f"({_dropped} lines were dropped here: nobody read them)")
            _dropped = 0
        if _has_room():
            _write(line)


def printable(text: object) -> str:
    """The text with U+FFFD for control characters: what came over the wire must not steer its reader's terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in str(text))


def _has_room() -> bool:
    """True for files and for closed descriptors as well: whether these take anything only a write can tell."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return bool(poll.poll(0))


def _write(line: str) -> None:
    try:
        os.write(2, line.encode(errors="backslashreplace")[: LINE_MAX - 1] + b"\n")
    except OSError:
        pass
