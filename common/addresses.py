"""Control addresses of masters, as callers, operators and applications give them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator

from .limits import CONTROL_PORT, PORT_MAX

MASTER_VARIABLE = "ROTA_MASTER"
HOST = r"[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%]+\]"  # what ZeroMQ connects to; an IPv6 address in brackets
_ADDRESS = re.compile(rf"tcp://({HOST})(?::([0-9]{{1,9}}))?")


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
    """The address with its port, 7700 unless it has one. Raises ValueError as `split` does."""
    host, port = split(name)
    return f"tcp://{host}:{port}"


def split(address: str) -> tuple[str, int]:
    parts = _parts(address)
    if parts is None:
        match = _ADDRESS.fullmatch(f"tcp://{address.removeprefix('tcp://')}")
        if match and match[2] and not 0 < int(match[2]) <= PORT_MAX:
            raise ValueError(f"{address!r} is no master's address: a port is 1 to {PORT_MAX}, not {match[2]}")
        hint = meant(address, lambda guess: _parts(guess) is not None)
        raise ValueError(f"{address!r} is no master's address: tcp://HOST:PORT expected{hint}")
    return parts


def meant(text: str, fits: Callable[[str], bool]) -> str:
    """`"; did you mean tcp://[::1]:7700?"` of `tcp://::1:7700`, or nothing when no guess fits."""
    return next((f"; did you mean {guess}?" for guess in _guesses(text) if fits(guess)), "")


def _parts(address: str) -> tuple[str, int] | None:
    match = _ADDRESS.fullmatch(address)
    port = int(match[2] or CONTROL_PORT) if match else 0
    return (match[1], port) if match and 0 < port <= PORT_MAX else None


def _guesses(text: str) -> Iterator[str]:
    """What may have been meant: with the scheme, without a slash at the end, an IPv6 address in brackets; each also
    with the usual port.
    """
    bare = text.rpartition("://")[2].rstrip("/")
    host, _, port = bare.rpartition(":")
    if _is_ipv6(host):
        bare = f"[{host}]:{port}"
    elif _is_ipv6(bare):
        bare = f"[{bare}]"
    yield f"tcp://{bare}"
    yield f"tcp://{bare}:{CONTROL_PORT}"


def _is_ipv6(text: str) -> bool:
    from ipaddress import IPv6Address  # only a mistake needs it

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
