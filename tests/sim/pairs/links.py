"""The real shells that find, greet and lose masters, over simulated connections.

`Session`, `Voters` and `PeerLink` are those of the package, from copies of their modules: below a copy lies `SimLink`
instead of ZeroMQ, and the clock and the chance of the cluster instead of the machine's. Nothing of the package itself
is changed: other tests of the same process go on with the real ones.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import deque
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import zmq

from rota.common import errors, sockets

if TYPE_CHECKING:
    from .cluster import PairCluster

PORTS = {7700: "control", 7701: "frontend", 7702: "backend"}


class Context:
    """What a part has in place of a ZeroMQ context: who it is, and what wakes it."""

    current: Context  # of the part that is being made

    def __init__(self, cluster: PairCluster, machine: str, wake: Callable[[], None]) -> None:
        self.cluster = cluster
        self.machine = machine
        self.wake = wake
        Context.current = self

    def term(self) -> None:
        """Nothing to be waited for."""


class _Frame(bytes):
    """As pyzmq hands over a message."""

    @property
    def bytes(self) -> bytes:
        return self

    buffer = bytes


class SimLink:
    """One life of a connection, as `rota.common.link.Link`; dealer and monitor are itself."""

    def __init__(self, ctx: Context, address: str, role: str, body_max: int = 0) -> None:
        self.address = address
        self.connected = False
        self.dealer = self.monitor = self
        self.inbox: deque[bytes] = deque()
        self._ctx = ctx
        self._open = True
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        master = ctx.cluster.masters[host]
        path = ctx.cluster.path(ctx.machine, host)
        self._connection = ctx.cluster.open(getattr(master, PORTS[int(port)]), path, self._heard, self._changed)

    def _heard(self, frame: bytes) -> None:
        if self._open:
            self.inbox.append(frame)
            self._ctx.wake()

    def _changed(self) -> None:
        if self._open:
            self._ctx.wake()

    def fds(self) -> tuple[int, ...]:
        return ()

    def readable(self) -> bool:
        return bool(self.inbox)

    def lost(self) -> bool:
        self.connected = self.connected or self._connection.connected
        return self._connection.lost

    def ended(self) -> str:
        return "lost" if self.connected else "no connection"

    def send(self, frame: bytes) -> bool:
        return self._connection.send(bytes(frame))

    def receive(self) -> bytes | None:
        return self.inbox.popleft() if self.inbox else None

    def close(self, linger_ms: int = 0) -> None:
        self._open = False
        self._connection.close(gently=linger_ms > 0)


class Poller:
    """Whoever is to be woken is: nobody polls."""

    def register(self, sock: object, flags: int) -> None: ...
    def unregister(self, sock: object) -> None: ...


def _receive(link: SimLink, *flags: object) -> _Frame:
    return _Frame(link.inbox.popleft())


def _send(link: SimLink, frame: bytes, *flags: object) -> None:
    if not link.send(frame):
        raise zmq.Again


def _now() -> float:
    return Context.current.cluster.clock.now


def _chance() -> float:
    return Context.current.cluster.rng.random()


def _random_bytes(count: int) -> bytes:
    return Context.current.cluster.rng.randbytes(count)


_SOCKETS = SimpleNamespace(
    context=lambda: Context.current,
    **{name: getattr(sockets, name) for name in ("CONTROL", "FRONTEND", "BACKEND", "PEER")},
)


def _copy(name: str, **others: object) -> ModuleType:
    """A second copy of a module, with other things below it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.get(name)
    spec.loader.exec_module(module)
    if known is not None:
        sys.modules[name] = known
    for key, value in others.items():
        assert hasattr(module, key), f"{name} has no {key} any more"
        setattr(module, key, value)
    return module


_beside = _copy("rota.client.beside", Link=SimLink)
_session = _copy(
    "rota.client.session",
    Link=SimLink,
    sockets=_SOCKETS,
    fast_recv=_receive,
    fast_send=_send,
    os=SimpleNamespace(urandom=_random_bytes),
    Beside=_beside.Beside,
    boottime=_now,
    anew=_beside.anew,
)
_voters = _copy("rota.worker.voters", Link=SimLink, sockets=_SOCKETS, monotonic=_now, random=_chance)
_peer_link = _copy("rota.master.peer_link", Link=SimLink, sockets=_SOCKETS)

Session: Any = _session.Session
OPEN = _session.OPEN
Voters: Any = _voters.Voters
PeerLink: Any = _peer_link.PeerLink

__all__ = ["OPEN", "Context", "PeerLink", "Poller", "Session", "SimLink", "Voters", "errors"]
