"""An address that cannot be had, and who has it."""

from __future__ import annotations

import os
from pathlib import Path


class PortInUse(Exception):
    """An address cannot be bound; the sentence names it, and who holds it where that can be told."""


def holder(port: int) -> str:
    """` by NAME (pid N)`, or nothing when it cannot be told (another user's process)."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        inodes |= {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
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
