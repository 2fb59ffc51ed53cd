"""Which masters a client knows, and where their other sockets are."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..common.limits import CONTROL_PORT, FRONTEND_OFFSET

if TYPE_CHECKING:
    from ..common.messages import Welcome

VARIABLE = "ROTA_MASTER"
_ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\],]+)(?::(\d{1,5}))?")


def control_addresses(given: tuple[str, ...] | list[str] | str | None) -> tuple[str, ...]:
    """The addresses given, else those of ROTA_MASTER, else this machine's master; commas separate several.

    Raises ValueError for what is not tcp://HOST or tcp://HOST:PORT.
    """
    texts = (given,) if isinstance(given, str) else given or ()
    names = [name.strip() for text in texts or (os.environ.get(VARIABLE, ""),) for name in text.split(",")]
    found = tuple(_complete(name) for name in dict.fromkeys(names) if name)
    return found or (f"tcp://127.0.0.1:{CONTROL_PORT}",)


def frontend_address(control: str, welcome: Welcome) -> str:
    """Where the clients of this master connect: the host that was dialled, unless the master says another one."""
    host, port = _split(control)
    return f"tcp://{welcome.host or host}:{welcome.frontend_port or port + FRONTEND_OFFSET}"


def other_address(welcome: Welcome) -> str:
    """Control address of the master that a standby follows; "" where it says none."""
    try:
        return _complete(welcome.other) if welcome.other else ""
    except ValueError:
        return ""


def _complete(name: str) -> str:
    host, port = _split(name)
    return f"tcp://{host}:{port}"


def _split(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2] or CONTROL_PORT) < 65536:
        raise ValueError(f"{address!r} is no master's address: tcp://HOST:PORT expected")
    return match[1], int(match[2] or CONTROL_PORT)
