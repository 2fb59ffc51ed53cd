"""systemd's Type=notify."""

from __future__ import annotations

import os


def notify(state: str) -> None:
    """Nothing where systemd did not start us. An abstract socket is written with a leading @. Raises OSError."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
