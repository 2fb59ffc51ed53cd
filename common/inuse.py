"""An address that cannot be had, and who has it."""

from __future__ import annotations

import os
from pathlib import Path

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")  # the second one is only there where the kernel has IPv6
_LISTENING = "0A"


class PortInUse(Exception):
    """An address cannot be bound; the sentence names it, and who holds it where that can be told."""


def holder(port: int) -> str:
    """` by NAME (pid N)`, or nothing when it cannot be told (another user's process)."""
    inodes = set()
    for table in filter(os.path.exists, _TABLES):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        inodes |= {row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port}
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = any(os.readlink(fd) in links for fd in (process / "fd").iterdir())
            name = (process / "comm").read_text().strip() if held else ""
        except OSError:
            continue
        if held:
            return f" by {name} (pid {process.name})"
    return ""
