"""Simulated nodes: `python -m bench.simulator CONTROL-ADDRESS PROCESSES`, for counts that no machine spawns.

Each node is a control DEALER that speaks as an agent, each of its processes a backend DEALER that
echoes at once. They follow `docs/PROTOCOL.md`; what a bench never meets (exits, drains) they ignore.
"""

from __future__ import annotations

import heapq
import itertools
import os
import resource
import select
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import zmq

from rota.common import body, messages, sockets, wire
from rota.common.limits import BEAT_S

PER_NODE = 25
SERVICE = "echo"


class Loop:
    """Sockets behind one epoll: its cost grows with what is ready, not with what is open."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    def add(self, peer: Peer) -> None:
        descriptor = peer.sock.fileno()
        self._peers[descriptor] = peer
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLET)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._ticket), call))

    def run(self) -> None:
        while True:
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            wait = self._due[0][0] - time.monotonic() if self._due else None
            for descriptor, _ in self._epoll.poll(None if wait is None else max(0.0, wait)):
                self._peers[descriptor].drain()


class Peer:
    """One DEALER and the session that its HELLO opened."""

    def __init__(self, loop: Loop, context: zmq.Context, address: str, role: str) -> None:
        self.loop = loop
        self.token = 0
        self.sock = sockets.dealer(context, role)
        self.sock.connect(address)
        loop.add(self)
        self.say_hello()

    def hello(self) -> messages.Message:
        raise NotImplementedError

    def handle(self, head: wire.Head, frame: bytes) -> None:
        raise NotImplementedError

    def say_hello(self) -> None:
        try:
            self.send(messages.framed(wire.HELLO, 0, self.hello()))
        except zmq.Again:  # not connected yet
            self.loop.after(0.01, self.say_hello)
        self.drain()

    def send(self, frame: bytes) -> None:
        sockets.fast_send(self.sock, frame, zmq.NOBLOCK)

    def tell(self, message: messages.Message) -> None:
        self.send(messages.framed(wire.CONTROL, self.token, message))

    def drain(self) -> None:
        """Until nothing is left; due after every send, since the descriptor tells edges only."""
        while True:
            try:
                frame = sockets.fast_recv(self.sock, zmq.NOBLOCK)
            except zmq.Again:
                return
            head = wire.parse_head(frame)
            if head.kind == wire.BUNDLE:
                for each in wire.split(frame, head):
                    self.handle(wire.parse_head(each), each)
            elif head.kind == wire.REFUSED:
                refusal = messages.decode(frame[head.head_len :])
                self.loop.after(refusal.retry_after_ms / 1e3, self.say_hello)
            elif head.kind == wire.WHO:
                self.say_hello()
            else:
                self.handle(head, frame)


class Process(Peer):
    def __init__(self, loop: Loop, context: zmq.Context, address: str, born: messages.Started) -> None:
        self.born = born
        self.received = 0
        self.replies = 0
        super().__init__(loop, context, address, sockets.BACKEND)

    def hello(self) -> messages.ProcessHello:
        return messages.ProcessHello(
            versions=list(wire.VERSIONS),
            incarnation=self.born.incarnation,
            ticket=self.born.ticket,
            service=SERVICE,
            version="simulated",
            digest="simulated",
            handlers={"echo": messages.Handler()},
            concurrency=1,
            pid=self.born.pid,
            received_upto=self.received,
            started_upto=self.received,
            reply_sequence=self.replies,
            held=[],
        )

    def handle(self, head: wire.Head, frame: bytes) -> None:
        if head.kind == wire.WELCOME:
            self.token = head.token
        elif head.kind == wire.DELIVER:
            self.received, self.replies = head.number, self.replies + 1
            _, named = body.decode_call(frame[head.head_len :])
            answer = wire.head(wire.REPLY, self.token, head.epoch, 20, head.number, self.replies, head.number)
            self.send(answer + body.encode_result(named["data"]))


class Node(Peer):
    def __init__(self, loop: Loop, context: zmq.Context, address: str, name: str, size: int):
        self.context, self.address, self.name, self.size = context, address, name, size
        self.processes: dict[str, Process] = {}
        self.boot = os.urandom(3).hex()
        self.beats = 0
        self.beating = False
        super().__init__(loop, context, address, sockets.CONTROL)

    def hello(self) -> messages.AgentHello:
        return messages.AgentHello(
            versions=list(wire.VERSIONS),
            node=self.name,
            boot=self.boot,
            epoch=0,
            capacity=self.size,
            offers=[SERVICE],
            tags={},
            processes=[process.born for process in self.processes.values()],
            exits=[],
            intent="active",
            generation=0,
        )

    def handle(self, head: wire.Head, frame: bytes) -> None:
        message = messages.decode(frame[head.head_len :])
        if isinstance(message, messages.Welcome):
            self.token, self.backend = head.token, self._backend(message)
            if not self.beating:
                self.beating = True
                self.beat()
        elif isinstance(message, messages.Plan):
            for _ in range(message.processes.get(SERVICE, 0) - len(self.processes)):
                self.spawn()
        elif isinstance(message, messages.Recall):
            done = self.processes[message.incarnation].received
            self.tell(messages.Recalled(message.incarnation, message.upto + 1, done))

    def _backend(self, welcome: messages.Welcome) -> str:
        host = welcome.host or urlsplit(self.address).hostname
        return f"tcp://{host}:{welcome.backend_port}"

    def beat(self) -> None:
        self.beats += 1
        self.tell(messages.Beat(self.beats))
        self.drain()
        self.loop.after(BEAT_S, self.beat)

    def spawn(self) -> None:
        """A process is announced before it speaks; the ticket proves that the two are one."""
        incarnation = f"{self.name}.{self.boot}.{len(self.processes) + 1}"
        born = messages.Started(incarnation, SERVICE, os.urandom(16), os.getpid())
        self.tell(born)
        self.processes[incarnation] = Process(self.loop, self.context, self.backend, born)


def main(address: str, count: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop, context = Loop(), sockets.context()
    left = int(count)
    nodes = []
    while left:
        size = min(PER_NODE, left)
        nodes.append(Node(loop, context, address, f"simulated-{len(nodes)}", size))
        left -= size
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:3])
