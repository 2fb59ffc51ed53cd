"""No master is where it was looked for: what to do about it."""

from __future__ import annotations

from ..common.addresses import split
from ..common.errors import Error, Unavailable
from ..common.link import NO_ANSWER, NO_CONNECTION


def hint(error: Error) -> str:
    """To be told behind the error. A master that stands by is somewhere, and says itself what is to be done."""
    unresolved, reasons = cannot_resolve(error), _reasons(error).values()
    if not unresolved and NO_ANSWER in reasons:
        return "; somebody listens there: a master that hangs, or no master at all"
    if not unresolved and NO_CONNECTION not in reasons:
        return ""
    return f"{unresolved}; start one with `rota master`, or say where it is: -m or ROTA_MASTER"


def cannot_resolve(error: Error) -> str:
    """`"; cannot resolve badname"`, or nothing. A connection hears nothing of it, so the resolver is asked again: some
    seconds, where that one is silent.
    """
    hosts = dict.fromkeys(split(address)[0] for address in _reasons(error))
    unknown = [host for host in hosts if not _is_known(host)]
    return f"; cannot resolve {' and '.join(unknown)}" if unknown else ""


def _reasons(error: Error) -> dict[str, str]:
    """Why each master is not reached, from whoever looked for one."""
    masters = error.details.get("masters")
    return masters if isinstance(error, Unavailable) and isinstance(masters, dict) else {}


def _is_known(host: str) -> bool:
    import socket

    try:
        socket.getaddrinfo(host.strip("[]"), None)
    except (OSError, UnicodeError):  # UnicodeError: no host name at all, such as a..b
        return False
    return True
