"""Control addresses of masters, as callers, operators and applications give them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from .limits import CONTROL_PORT

MASTER_VARIABLE = "ROTA_MASTER"
_ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\],]+)(?::(\d{1,5}))?")


def control_addresses(given: Iterable[str] | None) -> tuple[str, ...]:
    """The addresses given, one text or several, else those of ROTA_MASTER, else this machine's master; commas separate
    several. Raises ValueError for what is not tcp://HOST or tcp://HOST:PORT.
    """
    texts = (given,) if isinstance(given, str) else tuple(given or ())
    names = [name.strip() for text in texts or (os.environ.get(MASTER_VARIABLE, ""),) for name in _names(text)]
    found = tuple(complete(name) for name in dict.fromkeys(names) if name)
    return found or (f"tcp://127.0.0.1:{CONTROL_PORT}",)


def _names(text: str) -> list[str]:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no master's address: a text expected, tcp://HOST:PORT")
    return text.split(",")


def complete(name: str) -> str:
    """With its port."""
    host, port = split(name)
    return f"tcp://{host}:{port}"


def split(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2] or CONTROL_PORT) < 65536:
        meant = f"tcp://{address}"
        hint = f"; did you mean {meant}?" if _ADDRESS.fullmatch(meant) else ""
        raise ValueError(f"{address!r} is no master's address: tcp://HOST:PORT expected{hint}")
    return match[1], int(match[2] or CONTROL_PORT)
