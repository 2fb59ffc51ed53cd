"""Every socket option of rota, with its reason; nothing else makes a ZeroMQ socket. A test reads the options back.

`router()` for the three sockets of a master, `dealer()` for everybody who connects to one. `fast_send`, `fast_recv`,
`next_route` and `readable` are the calls of the hot path.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import zmq

from .limits import BODY_MAX, HEAD_MAX
from .wire import BUNDLE_BYTES_MAX

LINGER_MS = 0  # a peer that goes says BYE first; what it keeps is its own business, not the context's
ROUTER_HWM = 1000  # messages per peer; a peer's credit is far below, a client's window is its own
DEALER_HWM = 10_000  # a client may submit that many before its sends are told to wait
BACKLOG = 1024  # a whole pool reconnects at once after a master's restart; the default of 100 refuses it
HANDSHAKE_MS = 2000  # an idle TCP connection holds a descriptor no longer
CONNECT_TIMEOUT_MS = 2000  # the system's own is two minutes
MAX_RETRANSMIT_MS = 3000  # a black hole ends as a lost connection after as long as a node is given
# A master's end that lost data for MAX_RETRANSMIT_MS is gone without a word; who only listens at the other end would do
# so for ever. The system asks after such a silence (s), again after each second, and hears that there is nobody.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVES = 3, 1, 3
# Interval and time-out. On the data sockets it would cost 28 % of a core per 1,000 peers.
CONTROL_HEARTBEAT_MS = (1000, 5000)
MAX_SOCKETS = 4096
ROUTE_MAX = 256  # bytes; ZMTP has one byte for the length of an identity
NEVER_MS = 86_400_000  # a day: -1 throws away what was received last when the connection is lost

_NOBLOCK = int(zmq.NOBLOCK)  # the enumeration's member would be converted at each call

CONTROL, FRONTEND, BACKEND = "control", "frontend", "backend"
PEER = "peer"  # of a standby: to the control socket of the other master

_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class _Context(zmq.Context[zmq.Socket[bytes]]):
    """A context that may be dropped with all its sockets open: the garbage collector ends it.

    Its end waits for its sockets to be closed. pyzmq closes those that it knows, but by weak references, which the
    collector clears first: sockets that were still open would be waited for, for ever.
    """

    def __init__(self) -> None:
        super().__init__(io_threads=1)
        self._sockets: set[zmq.Socket[bytes]] = set()  # type: ignore[assignment]


def context(batch: bool = False) -> zmq.Context[zmq.Socket[bytes]]:
    """A context of its own for whoever asks: the global one could be shared or terminated by an application.

    `batch`: its I/O thread does not preempt the thread that it serves. That saves a third of the CPU of a request where
    messages are sent one by one, microseconds apart; anywhere else it only adds delay when cores are busy
    (docs/decisions/010).
    """
    made = _Context()
    made.max_sockets = MAX_SOCKETS
    if batch and hasattr(os, "SCHED_BATCH"):
        made.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)
    return made


def router(ctx: zmq.Context[zmq.Socket[bytes]], role: str, body_max: int = BODY_MAX) -> zmq.Socket[bytes]:
    """A ROUTER that never drops silently and never blocks; still to be bound."""
    sock = ctx.socket(zmq.ROUTER)
    _common(sock, role, body_max)
    sock.router_mandatory = True  # an unknown route is EHOSTUNREACH, a full one EAGAIN, not silence
    sock.sndhwm = sock.rcvhwm = ROUTER_HWM
    sock.sndtimeo = 0  # mandatory without this blocks the whole router for one slow peer
    sock.backlog = BACKLOG
    return sock


def dealer(ctx: zmq.Context[zmq.Socket[bytes]], role: str, body_max: int = BODY_MAX) -> zmq.Socket[bytes]:
    """A DEALER for one connection of one life: it does not reconnect by itself, since a silent reconnect
    changes the route and loses what was under way; its owner opens a new one and says HELLO.
    """
    sock = ctx.socket(zmq.DEALER)
    _common(sock, role, body_max)
    sock.reconnect_ivl = NEVER_MS
    # With it nothing is queued for an address that nobody answers at, and a send fails as soon as the connection is
    # gone. Without it what came before the end can still be read: the last answers of a master that stops, its BYE, and
    # that it hands over.
    sock.immediate = role not in (FRONTEND, PEER)
    sock.sndhwm = sock.rcvhwm = DEALER_HWM
    sock.sndtimeo = 0
    sock.connect_timeout = CONNECT_TIMEOUT_MS
    sock.tcp_keepalive, sock.tcp_keepalive_cnt = 1, KEEPALIVES
    sock.tcp_keepalive_idle, sock.tcp_keepalive_intvl = KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S
    return sock


def _common(sock: zmq.Socket[bytes], role: str, body_max: int) -> None:
    sock.linger = LINGER_MS
    # Beyond it the transport cuts the peer; senders check first. A bundle of small ones is always let through.
    sock.maxmsgsize = max(body_max, BUNDLE_BYTES_MAX) + HEAD_MAX
    sock.handshake_ivl = HANDSHAKE_MS
    sock.set(zmq.TCP_MAXRT, MAX_RETRANSMIT_MS)
    if role in (CONTROL, PEER):
        sock.heartbeat_ivl, sock.heartbeat_timeout = CONTROL_HEARTBEAT_MS


def bind(sock: zmq.Socket[bytes], address: str) -> None:
    """Raises ZMQError."""
    _set_family(sock, address)
    sock.bind(address)


def connect(sock: zmq.Socket[bytes], address: str) -> None:
    """Begins to. Raises ZMQError when the address cannot be one."""
    _set_family(sock, address)
    sock.connect(address)


def _set_family(sock: zmq.Socket[bytes], address: str) -> None:
    """IPv6 is what stands in brackets. Not names: libzmq would take ::1 for localhost, and try no other address."""
    sock.ipv6 = "[" in address


def monitor(sock: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """The socket that tells when a dealer's connection came about or was lost."""
    return sock.get_monitor_socket(_WATCHED)


def _calls() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The extension class's own calls where this pyzmq has them (0.6 µs a frame), else the public ones (twice that)."""
    try:
        from zmq.backend.cython._zmq import Socket
    except ImportError:
        return zmq.Socket.send, zmq.Socket.recv
    return Socket.send, Socket.recv


fast_send, fast_recv = _calls()


def readable(sock: zmq.Socket[bytes]) -> Callable[[], int]:
    """A function that says whether `sock` has a message now, for the end of a batch.

    To learn it from `zmq.Again` costs 8 to 10 µs, as much as three messages; from pyzmq's `get` 2 to 3 µs, since it
    builds an enum. The same question to libzmq itself takes 0.8 µs: one memory cell, one call, no enum.
    """
    try:
        from zmq.backend.cython import _zmq

        ask = ctypes.PyDLL(_zmq.__file__).zmq_getsockopt
    except (ImportError, OSError, AttributeError):
        return lambda: int(sock.get(zmq.EVENTS)) & zmq.POLLIN
    events, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    words = (ctypes.c_void_p(sock.underlying), ctypes.c_int(zmq.EVENTS), ctypes.byref(events), ctypes.byref(size))
    pollin = int(zmq.POLLIN)

    def has_message() -> int:
        if sock.closed or ask(*words):
            return 0
        return events.value & pollin

    return has_message


def next_route(sock: zmq.Socket[bytes]) -> Callable[[], bytes | None]:
    """A function that receives the first frame of a ROUTER's next message, None when there is none. Its descriptor then
    tells when there is. Not to be called once `sock` is closed.

    One call of libzmq with the interpreter's lock held, into the same memory each time. `readable` and a receive are
    two calls, and three system calls more.
    """
    try:
        from zmq.backend.cython import _zmq

        receive = ctypes.PyDLL(_zmq.__file__).zmq_recv
    except (ImportError, OSError, AttributeError):
        return lambda: fast_recv(sock, _NOBLOCK) if int(sock.get(zmq.EVENTS)) & zmq.POLLIN else None
    buffer = ctypes.create_string_buffer(ROUTE_MAX)
    view = memoryview(buffer).cast("B")
    words = (ctypes.c_void_p(sock.underlying), buffer, ctypes.c_size_t(ROUTE_MAX), ctypes.c_int(_NOBLOCK))

    def receive_route() -> bytes | None:
        size = receive(*words)
        return bytes(view[:size]) if size >= 0 else None

    return receive_route
