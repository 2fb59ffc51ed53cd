"""Brokers and workers to compare with: `python -m bench.brokers ROLE ADDRESS…`.

`textbook` is the load-balancing broker of the ZeroMQ guide with a credit of 16; `lean` is the
least that a scheduling loop in pure Python can do, and so what a master of ours is held against.
All three brokers get the same lean client and lean workers: only the broker differs, and none of
them looks slow because of its partners.
"""

from __future__ import annotations

import sys
from collections import deque

import zmq

CREDIT = 16
READY = b"READY"


def bound(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> zmq.Socket[bytes]:
    sock = context.socket(kind)
    sock.linger = 0
    sock.set_hwm(0)
    sock.bind(address)
    return sock


def connected(address: str) -> zmq.Socket[bytes]:
    sock = zmq.Context().socket(zmq.DEALER)
    sock.linger = 0
    sock.set_hwm(0)
    sock.connect(address)
    return sock


def textbook(front: str, back: str) -> None:
    """ROUTER to ROUTER, one entry in `idle` for each free credit of a worker."""
    context = zmq.Context()
    frontend = bound(context, zmq.ROUTER, front)
    backend = bound(context, zmq.ROUTER, back)
    poller = zmq.Poller()
    poller.register(backend, zmq.POLLIN)
    poller.register(frontend, zmq.POLLIN)
    idle: deque[bytes] = deque()
    waiting: deque[list[bytes]] = deque()
    while True:
        events = dict(poller.poll())
        if backend in events:
            worker, *reply = backend.recv_multipart()
            if reply == [READY]:
                idle.extend([worker] * CREDIT)
            else:
                idle.append(worker)
                frontend.send_multipart(reply)
        if frontend in events:
            waiting.append(frontend.recv_multipart())
        while waiting and idle:
            backend.send_multipart([idle.popleft(), *waiting.popleft()])


def proxy(front: str, back: str) -> None:
    """libzmq's own loop in C: no scheduling, round-robin over the workers."""
    context = zmq.Context()
    zmq.proxy(bound(context, zmq.ROUTER, front), bound(context, zmq.DEALER, back))


def worker(address: str, greeting: str = "") -> None:
    """Echo a caller's route and body; the greeting asks a scheduling broker for work."""
    from zmq.backend.cython import _zmq

    recv, send, more = _zmq.Socket.recv, _zmq.Socket.send, int(zmq.SNDMORE)
    sock = connected(address)
    if greeting:
        sock.send(greeting.encode())
    while True:
        send(sock, recv(sock), more)
        send(sock, recv(sock))


def lean(front: str, back: str) -> None:
    """Two ROUTERs, one frame beside the route, the extension's own calls, drained in batches."""
    from zmq.backend.cython import _zmq

    recv, send, poll = _zmq.Socket.recv, _zmq.Socket.send, _zmq.zmq_poll
    nowait = int(zmq.NOBLOCK)
    more = nowait | int(zmq.SNDMORE)
    context = zmq.Context()
    frontend = bound(context, zmq.ROUTER, front)
    backend = bound(context, zmq.ROUTER, back)
    frontend.router_mandatory = backend.router_mandatory = True
    both = [(frontend, int(zmq.POLLIN)), (backend, int(zmq.POLLIN))]
    idle: deque[bytes] = deque()
    waiting: deque[tuple[bytes, bytes]] = deque()
    callers: dict[bytes, bytes] = {}

    def take(sock: zmq.Socket[bytes]) -> tuple[bytes, bytes] | None:
        route = recv(sock, nowait)
        frame = recv(sock, nowait, False)
        if not frame.more:
            return route, frame.bytes
        while recv(sock, nowait, False).more:
            pass
        return None

    while True:
        ready = {sock for sock, _ in poll(both, -1)}
        if backend in ready:
            try:
                for _ in range(64):
                    if message := take(backend):
                        route, body = message
                        if body == READY:
                            idle.extend([route] * CREDIT)
                            continue
                        idle.append(route)
                        send(frontend, callers.pop(body[:8]), more)
                        send(frontend, body, nowait)
            except zmq.Again:
                pass
        if frontend in ready:
            try:
                for _ in range(64):
                    if message := take(frontend):
                        waiting.append(message)
            except zmq.Again:
                pass
        while waiting and idle:
            route, body = waiting.popleft()
            callers[body[:8]] = route
            send(backend, idle.popleft(), more)
            send(backend, body, nowait)


def lean_worker(address: str) -> None:
    from zmq.backend.cython import _zmq

    recv, send = _zmq.Socket.recv, _zmq.Socket.send
    sock = connected(address)
    sock.send(READY)
    while True:
        send(sock, recv(sock))


async def _nats_worker(address: str) -> None:
    import asyncio

    import nats

    connection = await nats.connect(address)

    async def echo(message: nats.aio.msg.Msg) -> None:
        await message.respond(message.data)

    await connection.subscribe("echo", queue="workers", cb=echo)
    await asyncio.Event().wait()


def nats_worker(address: str) -> None:
    import asyncio

    asyncio.run(_nats_worker(address))


ROLES = {
    "textbook": textbook,
    "proxy": proxy,
    "worker": worker,
    "lean": lean,
    "lean-worker": lean_worker,
    "nats-worker": nats_worker,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
