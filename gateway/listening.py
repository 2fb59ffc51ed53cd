"""The addresses of gateways: bound before a process of theirs runs, and left without refusing anybody."""

from __future__ import annotations

import contextlib
import errno
import socket

from ..common import descriptors
from ..common.inuse import PortInUse, holder

DEFAULT = "0.0.0.0:8080"
_OWN_DESCRIPTORS = 256  # beside connections: of ZeroMQ, the event loop, and spooled bodies
BACKLOG = 1024  # connections that wait to be accepted: a gateway that is busy for a moment refuses none


def bound(address: str, count: int) -> list[socket.socket]:
    """So many sockets that listen on HOST:PORT; either may be *. Raises PortInUse."""
    host, _, port = address.rpartition(":")
    host = {"*": "0.0.0.0"}.get(host, host.strip("[]"))
    first = _bound(address, host, 0 if port == "*" else int(port), False)
    listeners = [first]
    if count > 1:  # the first one only finds out whether the port is free: who shares it could not
        number = first.getsockname()[1]
        first.close()
        listeners = [_bound(address, host, number, True) for _ in range(count)]
    for listener in listeners:
        listener.listen(BACKLOG)
    return listeners


def check_free(address: str) -> None:
    """Raises PortInUse if it could not be bound now."""
    bound(address, 1)[0].close()


def room_for(connections: int) -> str:
    """Let this process, and those that it forks, have so many sockets: a shell gives 1024 descriptors. Returns what is
    wrong with that, "" if nothing is.
    """
    wanted = connections + _OWN_DESCRIPTORS
    if (most := descriptors.allow(wanted)) < wanted:
        return f"http.connections is {connections}, but only {most} descriptors are allowed here: raise `ulimit -Hn`"
    return ""


def _bound(address: str, host: str, port: int, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError:  # a label is empty, or too long
        raise PortInUse(f"the HTTP address {address} cannot be bound: no host has such a name") from None
    except OSError as error:
        raise PortInUse(f"the HTTP address {address} cannot be bound: {error.strerror}") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise PortInUse(why_not(address, port, error)) from None
    sock.setblocking(False)
    return sock


def why_not(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EACCES and port < 1024:
        return f"the HTTP address {address} is for root only: a port below 1024 needs CAP_NET_BIND_SERVICE"
    if error.errno != errno.EADDRINUSE:
        return f"the HTTP address {address} cannot be bound: {error.strerror}"
    return f"the HTTP address {address} is in use{holder(port)}: stop that, or choose another one"


def url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def shut(listener: socket.socket) -> list[socket.socket]:
    """Nobody can connect any more, in whatever process the socket is open; who had connected is handed over."""
    waiting = []
    with contextlib.suppress(OSError):
        while True:
            waiting.append(listener.accept()[0])
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    return waiting
