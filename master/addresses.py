"""Addresses of this master's control socket: where its own machine reaches it, and where another master does."""

from __future__ import annotations

import socket

from ..common.kinds import split_address
from ..common.settings import MasterSettings, StandbySettings

_ANY = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def here(master: MasterSettings, port: int) -> str:
    """Where commands of this machine reach it."""
    host = (split_address(master.bind) or ("*", ""))[0]
    return f"tcp://{_ANY.get(host, host)}:{port}"


def elsewhere(master: MasterSettings, standby: StandbySettings, port: int) -> str:
    """Where the other master reaches it: as `address` says, else at the host that the other one would see."""
    if standby.address:
        return standby.address
    host = (split_address(master.bind) or ("*", ""))[0]
    if master.advertise:
        host = master.advertise
    elif host in _ANY:
        host = _towards(next(iter(standby.backup_of or ()), ""))
    return f"tcp://{host}:{port}"


def _towards(address: str) -> str:
    """The host of this machine as seen by the one at this address."""
    there = split_address(address)
    if there is None:
        return socket.gethostname()
    host, port = there[0].strip("[]"), int(there[1])
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, port))  # sends nothing: only a route is looked up
            found = str(sock.getsockname()[0])
        except OSError:
            return socket.gethostname()
    return f"[{found}]" if ":" in found else found
