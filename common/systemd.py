"""systemd's Type=notify."""

from __future__ import annotations

import os


def notify(state: str) -> None:
    """Tells systemd `state`, such as "READY=1"; does nothing where it did not start us. Raises OSError. (A leading @ in
    the name of its socket stands for the null byte of an abstract one.)
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
