"""The master's three ROUTER sockets: bound, read in batches, written without ever waiting for a peer."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import zmq

from ..common import sockets, wire
from ..common.inuse import PortInUse, holder
from ..common.settings import MasterSettings
from .core.sessions import Source

BATCH = 256  # messages read from one socket before the others have their turn

_recv = sockets.fast_recv
_send = sockets.fast_send
_NOW = int(zmq.NOBLOCK)
_FIRST = int(zmq.NOBLOCK | zmq.SNDMORE)

Socket = zmq.Socket[bytes]
Receive = Callable[[bytes, bytes, float], None]
ReceiveLarge = Callable[[bytes, wire.Large, float], None]


class Ports:
    """`control`, `frontend`, `backend`; `numbers` has those that they were bound to."""

    def __init__(self, settings: MasterSettings) -> None:
        self._context = sockets.context()
        self.numbers: dict[str, int] = {}
        body_max = settings.max_message
        try:
            self.control = self._bind(sockets.CONTROL, settings.bind, body_max)
            self.frontend = self._bind(sockets.FRONTEND, settings.frontend_address(), body_max)
            self.backend = self._bind(sockets.BACKEND, settings.backend_address(), body_max)
        except PortInUse:
            self._context.destroy(linger=0)
            raise
        self.by_fd = {port.fd: port for port in (self.control, self.frontend, self.backend)}

    def _bind(self, role: str, address: str, body_max: int) -> Port:
        sock = sockets.router(self._context, role, body_max)
        try:
            sockets.bind(sock, address)
        except zmq.ZMQError as error:
            raise PortInUse(_why_not(role, address, error)) from None
        self.numbers[role] = int(bytes(sock.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").rpartition(b":")[2])
        return Port(sock)

    def take_bad(self) -> int:
        """Messages that were dropped before the core could see them, since the last look."""
        bad = 0
        for port in self.by_fd.values():
            bad += port.bad
            port.bad = 0
        return bad

    def close(self) -> None:
        for port in self.by_fd.values():
            port.close()
        self._context.term()


class Port:
    """One ROUTER; `fd` is for polls. `bad`: messages that were not [route, frame], dropped.

    `empty`: it was asked, found empty and not used since, so its descriptor tells when there is something. (A send may
    take from the descriptor what it has to tell.)
    """

    def __init__(self, sock: Socket) -> None:
        self.fd = int(sock.get(zmq.FD))
        self.bad = 0
        self.empty = False
        self._sock = sock
        self._last: zmq.Frame | None = None
        self._next_route = sockets.next_route(sock)

    def receive(self, receive_one: Receive, now: float, receive_large: ReceiveLarge | None = None) -> int:
        """Reads what is there, up to BATCH messages, and says how many these were."""
        sock, next_route = self._sock, self._next_route
        for place in range(BATCH):
            route = next_route()
            if route is None:
                self.empty = True
                self._last = None  # it may be a large one, and the next may be long in coming
                return place
            last = _recv(sock, _NOW, False)  # as a Frame: it knows whether more follow, at a third of RCVMORE's cost
            if last.more:
                self._drop(last)
            else:
                self._last = last
                if receive_large is not None and len(last) > wire.BUNDLE_BYTES_MAX:
                    receive_large(route, wire.Large(last), now)
                else:
                    receive_one(route, last.bytes, now)
        return BATCH

    def send(self, route: bytes, frame: wire.Frame) -> int:
        """0, or the errno that says why it was not queued: EHOSTUNREACH no such route, EAGAIN it is full."""
        self.empty = False
        try:
            _send(self._sock, route, _FIRST)
            _send(self._sock, frame.message if isinstance(frame, wire.Large) else frame, _NOW)
        except zmq.ZMQError as error:
            return error.errno or errno.EIO
        return 0

    def _drop(self, last: zmq.Frame) -> None:
        while last.more:
            last = _recv(self._sock, _NOW, False)
        self.bad += 1

    def close(self) -> None:
        self._sock.close(200)

    def source(self) -> Source:
        """The connection over which the message came that is being read."""
        try:
            fd = int(self._last.get(zmq.SRCFD)) if self._last is not None else -1
            return Source(fd, _peer(fd))
        except (OSError, zmq.ZMQError):
            return Source()


def cut(source: Source) -> None:
    """Ends a connection; libzmq has no call for it. The descriptor is the I/O thread's: it may be closed, and even be
    another's by now, so who is at its other end is compared first.
    """
    try:
        if source.fd >= 0 and _peer(source.fd) == source.peer:
            with socket.socket(fileno=os.dup(source.fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # gone by itself


def _peer(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as sock:
        host, port = sock.getpeername()[:2]
        return f"{host}:{port}"


def _why_not(role: str, address: str, error: zmq.ZMQError) -> str:
    if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return f"the {role} address {address} cannot be bound: it is no address of this machine"
    if error.errno != errno.EADDRINUSE:
        return f"the {role} address {address} cannot be bound: {error.strerror}"
    by = holder(int(address.rpartition(":")[2])) if address.startswith("tcp://") else ""
    return f"the {role} address {address} is in use{by}: stop that, or choose another port with --bind"
