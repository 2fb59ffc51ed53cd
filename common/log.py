"""What a master or an agent tells its operator: lines on stderr."""

from __future__ import annotations

import os


def note(text: str) -> None:
    """Never raises: stderr may be a file on a full disk, or a pipe whose reader is gone. No reason to end what works.

    Straight to the descriptor: what cannot be written is not kept to fail again at the next line, and at the exit.
    """
    try:
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))
    except OSError:
        pass
