"""TCP between a master and its peers, to be cut at will: bytes pass, until somebody says `reset()`."""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import threading
from types import TracebackType
from typing import Self

PROXIED = "127.0.0.2"  # peers use the host that they dialled, with the ports that the master tells them
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: close() sends RST and throws away what is buffered


class Proxy:
    """Listens at the same ports of another address of this machine. One thread."""

    def __init__(self, ports: dict[str, int], host: str = PROXIED, target: str = "127.0.0.1") -> None:
        """`ports`: role → port, the same on both sides."""
        self.host = host
        self.resets = 0
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._pairs: dict[socket.socket, tuple[socket.socket, str]] = {}  # one side → the other, role
        self._lock = threading.Lock()
        self._ended = False
        self._reader, self._writer = os.pipe()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._listeners = {role: socket.create_server((host, port), backlog=64) for role, port in ports.items()}
        for role, listener in self._listeners.items():
            self._selector.register(listener, selectors.EVENT_READ, role)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self._ended = True
        os.write(self._writer, b"x")
        self._thread.join()
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
            side = (chance or random).choice(sides)
            other, _ = self._pairs[side]
            for each in (side, other):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._drop(each)
            self.resets += 1
            return True

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.fileobj is self._reader or key.fd == self._reader:
                        continue
                    if key.data is not None:
                        self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                    elif key.fileobj in self._pairs:
                        self._pass(key.fileobj)  # type: ignore[arg-type]

    def _accept(self, listener: socket.socket, role: str) -> None:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((self._target, listener.getsockname()[1]), timeout=2)
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
        other, _ = self._pairs[side]
        try:
            data = side.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._drop(side)
        self._drop(other)

    def _drop(self, side: socket.socket) -> None:
        if self._pairs.pop(side, None) is not None:
            self._selector.unregister(side)
            side.close()
