"""TCP between a master and its peers that misbehaves as told: cut, late, swallowed, or with a bit turned over."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import selectors
import socket
import struct
import threading
from collections.abc import Collection
from time import monotonic
from types import TracebackType
from typing import Self

PROXIED = "127.0.0.2"  # peers use the host that they dialled, with the ports that the master tells them
JOIN_S = 30.0  # a piece of data takes 5 s to be passed on, at most
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: close() sends RST and throws away what is buffered


class Proxy:
    """Listens at the same ports of another address of this machine. One thread.

    delay    (least, most) seconds before each piece of data goes on, in its order
    hole     roles whose data is swallowed; their connections stay open until `heal()`
    flip     chance that a bit of a piece of data is turned over, from 0 to 1
    """

    def __init__(self, ports: dict[str, int]) -> None:
        """`ports`: role → port, the same on both sides."""
        self.resets = 0
        self.flips = 0
        self.delay: tuple[float, float] | None = None
        self.hole: Collection[str] = ()
        self.flip = 0.0
        self._holed: set[socket.socket] = set()  # sides whose data was swallowed
        self._chance = random.Random(3)
        self._selector = selectors.DefaultSelector()
        self._pairs: dict[socket.socket, tuple[socket.socket, str]] = {}  # one side → the other, role
        self._later: list[tuple[float, int, socket.socket, bytes]] = []  # when, in which order, to whom, what; b"" ends
        self._until: dict[socket.socket, float] = {}  # nothing overtakes what goes to the same side
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._ended = False
        self._reader, self._writer = os.pipe()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._listeners = {role: socket.create_server((PROXIED, port), backlog=64) for role, port in ports.items()}
        for role, listener in self._listeners.items():
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, role)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self._ended = True
        os.write(self._writer, b"x")
        self._thread.join(JOIN_S)
        assert not self._thread.is_alive(), "the proxy still passes something on"
        for sock in [*self._listeners.values(), *self._pairs]:
            sock.close()
        self._selector.close()
        os.close(self._reader)
        os.close(self._writer)

    def connections(self, role: str) -> int:
        with self._lock:
            return sum(found == role for _, found in self._pairs.values()) // 2

    def reset(self, role: str, chance: random.Random | None = None) -> bool:
        """Cut one connection of this role, both ways. False when there is none."""
        with self._lock:
            sides = [side for side, (_, found) in self._pairs.items() if found == role]
            if not sides:
                return False
            self._reset((chance or random).choice(sides))
            return True

    def heal(self) -> None:
        """Data passes again. A connection that lost some is cut: TCP never goes on with a gap."""
        with self._lock:
            self.hole = ()
            for side in list(self._holed):
                if side in self._pairs:
                    self._reset(side)
            self._holed.clear()

    def _reset(self, side: socket.socket) -> None:
        other, _ = self._pairs[side]
        for each in (side, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._drop(each)
        self.resets += 1

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(self._wait()):
                with self._lock:
                    if key.fileobj is self._reader or key.fd == self._reader:
                        continue
                    if key.data is not None:
                        self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                    elif key.fileobj in self._pairs:
                        self._pass(key.fileobj)  # type: ignore[arg-type]
            self._send_due()

    def _wait(self) -> float | None:
        return max(0.0, self._later[0][0] - monotonic()) if self._later else None

    def _accept(self, listener: socket.socket, role: str) -> None:
        try:
            near, _ = listener.accept()
        except BlockingIOError:  # who came is gone
            return
        try:
            far = socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=2)
        except OSError:  # the master is not there
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            near.close()
            return
        for side, other in ((near, far), (far, near)):
            side.settimeout(5)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[side] = other, role
            self._selector.register(side, selectors.EVENT_READ)

    def _pass(self, side: socket.socket) -> None:
        other, role = self._pairs[side]
        try:
            data = side.recv(65536)
        except OSError:
            data = b""
        if data and role in self.hole:
            self._holed.add(side)
            return
        if data and self.flip and self._chance.random() < self.flip:
            data = self._flipped(data)
        if self.delay or other in self._until:
            self._put_off(other, data)
        else:
            self._send(other, data)

    def _flipped(self, data: bytes) -> bytes:
        self.flips += 1
        turned = bytearray(data)
        turned[self._chance.randrange(len(turned))] ^= 1 << self._chance.randrange(8)
        return bytes(turned)

    def _put_off(self, side: socket.socket, data: bytes) -> None:
        wait = self._chance.uniform(*self.delay) if self.delay else 0.0
        due = self._until[side] = max(monotonic() + wait, self._until.get(side, 0.0))
        heapq.heappush(self._later, (due, next(self._numbers), side, data))
        if not data:
            self._selector.unregister(self._pairs[side][0])  # its end is known: it would be told again and again

    def _send_due(self) -> None:
        while self._later and self._later[0][0] <= monotonic():
            _, _, side, data = heapq.heappop(self._later)
            with self._lock:
                if side in self._pairs:
                    self._send(side, data)

    def _send(self, side: socket.socket, data: bytes) -> None:
        """Passes it on; b"", or an error, ends both sides."""
        other, _ = self._pairs[side]
        try:
            if data:
                side.sendall(data)
                return
        except OSError:
            pass
        self._drop(side)
        self._drop(other)

    def _drop(self, side: socket.socket) -> None:
        if self._pairs.pop(side, None) is not None:
            self._until.pop(side, None)
            if side in self._selector.get_map():
                self._selector.unregister(side)
            side.close()
