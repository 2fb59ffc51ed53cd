"""A wire between two network namespaces that delays, loses and throttles packets, or swallows them one way or both.

It needs root, /dev/net/tun and `ip`; many kernels have no netem, and iptables are not everywhere. The machine's own
network is not touched: both namespaces are fresh, and go with the last process in them.

`python wire.py NEAR FAR`, with two descriptors of TUN devices, is the process that carries the packets. It reads rules
from stdin, a JSON object a line: {"delay": [LEAST_S, MOST_S], "loss": 0..1, "rate": BYTES_S, "cut": ["out", "in"]}.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Self

NEAR, FAR = "10.78.0.1", "10.78.0.2"
MTU = 1400
BACKLOG_S = 0.5  # what a slow wire holds; more is dropped, as a router does
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Network:
    """This thread, and what it starts, is in the near namespace; within `far()` it is in the other.

    Raises OSError where that cannot be.
    """

    def __enter__(self) -> Self:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = _own_namespace()
        self._open = [self._home]
        self._carrier: subprocess.Popen[bytes] | None = None
        try:
            far_tun = self._end("far", FAR, NEAR)
            self._far = self._keep(_own_namespace())
            near_tun = self._end("near", NEAR, FAR)
            self._near = self._keep(_own_namespace())
            command = [sys.executable, __file__, str(near_tun), str(far_tun)]
            self._carrier = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(near_tun, far_tun))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._enter(self._home)
        if self._carrier is not None:
            assert self._carrier.stdin is not None
            self._carrier.stdin.close()
            self._carrier.wait()
        for fd in self._open:
            os.close(fd)

    def rules(self, **rules: Any) -> None:
        """What holds from now on; what is not named is as on a good wire. `cut`: "out" of far, "in" to far."""
        assert self._carrier is not None and self._carrier.stdin is not None
        self._carrier.stdin.write(json.dumps(rules).encode() + b"\n")
        self._carrier.stdin.flush()

    @contextmanager
    def far(self) -> Iterator[None]:
        self._enter(self._far)
        try:
            yield
        finally:
            self._enter(self._near)

    def _end(self, name: str, address: str, peer: str) -> int:
        """A fresh namespace with one end of the wire in it; this thread stays there."""
        if self._libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no network namespace can be made")
        tun = self._keep(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        for command in (
            f"ip addr add {address} peer {peer} dev {name}",
            f"ip link set {name} up mtu {MTU}",
            "ip link set lo up",
        ):
            subprocess.run(command.split(), check=True)
        return tun

    def _enter(self, namespace: int) -> None:
        if self._libc.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def carry(near: int, far: int, commands: int) -> None:
    """Packets from one end to the other by the rules, until `commands` ends."""
    chance = random.Random(5)
    delay, loss, rate, cut = (0.0, 0.0), 0.0, 0.0, set[str]()
    other, way = {near: far, far: near}, {near: "in", far: "out"}
    later: list[tuple[float, int, int, bytes]] = []  # when, order, where to, packet
    numbers = itertools.count()
    free_at = {near: 0.0, far: 0.0}
    while True:
        wait = max(0.0, later[0][0] - monotonic()) if later else None
        ready = select.select([near, far, commands], [], [], wait)[0]
        if commands in ready:
            data = os.read(commands, 65536)
            if not data:
                return
            told = json.loads(data.splitlines()[-1])
            delay, loss = told.get("delay", (0.0, 0.0)), told.get("loss", 0.0)
            rate, cut = told.get("rate", 0.0), set(told.get("cut", ()))
        now = monotonic()
        for end in ready:
            if end != commands:
                for packet in _packets(end):
                    if way[end] in cut or (loss and chance.random() < loss):
                        continue
                    due = now + chance.uniform(*delay)
                    if rate:
                        free_at[end] = max(now, free_at[end])
                        if free_at[end] - now > BACKLOG_S:
                            continue
                        free_at[end] += len(packet) / rate
                        due = max(due, free_at[end])
                    heapq.heappush(later, (due, next(numbers), other[end], packet))
        while later and later[0][0] <= monotonic():
            _, _, end, packet = heapq.heappop(later)
            try:
                os.write(end, packet)
            except OSError:  # its queue is full: lost, as on a wire
                pass


def _packets(end: int) -> Iterator[bytes]:
    for _ in range(64):
        try:
            yield os.read(end, 2 * MTU)
        except BlockingIOError:
            return


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), 0)
