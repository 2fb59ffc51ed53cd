"""What one pyzmq operation costs a Python loop: `python -m bench.operations [--seconds S]`.

Every figure is CPU time of the calling thread (`time.thread_time_ns`), the median of several
batches, so a busy machine blurs it little. Messages come from a peer in another process, because
a peer thread would share the interpreter lock with the loop that is measured.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq
from zmq.backend.cython import _zmq

NOBLOCK, SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)
POLLIN, EVENTS = int(zmq.POLLIN), int(zmq.EVENTS)
SETTLE = 0.1  # seconds for the I/O threads to move a batch and go to sleep
PATCH = struct.Struct("48s").pack_into
RECV, SEND, GET = _zmq.Socket.recv, _zmq.Socket.send, _zmq.Socket.get

PEER = """
import sys, zmq
address, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = zmq.Context().socket(zmq.DEALER)
sock.set_hwm(0); sock.linger = 0
sock.connect(address)
body = bytes(size)
sock.send(b"ready")
while True:
    order = sock.recv()
    if order == b"send":
        for _ in range(batch): sock.send(body)
    elif order == b"stop":
        break
"""


def batch_of(size: int) -> int:
    """Messages measured at once: at most 8 MiB in the pipe."""
    return min(500, (8 << 20) // size)


@contextmanager
def router_and_peer(address: str, size: int, mandatory: bool = True) -> Iterator[tuple[zmq.Socket[bytes], bytes]]:
    """A ROUTER and a DEALER in another process; the second item is the peer's routing id."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.router_mandatory = mandatory
    router.set_hwm(0)
    router.linger = 0
    router.bind(address)
    endpoint = router.last_endpoint.decode().rstrip("\0")
    peer = subprocess.Popen([sys.executable, "-c", PEER, endpoint, str(size), str(batch_of(size))])
    try:
        route = router.recv_multipart()[0]
        yield router, route
        router.send_multipart([route, b"stop"])
        peer.wait(5)
    finally:
        peer.kill()
        peer.wait()
        context.destroy(linger=0)


def per_call(batch: Callable[[], int], seconds: float) -> float:
    """Median microseconds of own-thread CPU for one call; `batch` returns how many it made."""
    costs, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(costs) < 3:
        before = time.thread_time_ns()
        calls = batch()
        costs.append((time.thread_time_ns() - before) / calls / 1000)
    return statistics.median(costs)


def receiving(
    router: zmq.Socket[bytes],
    route: bytes,
    batch: int,
    receive: Callable[[], object],
    seconds: float,
) -> float:
    """Cost of `receive` when the messages already lie in the socket's pipe."""
    costs, end, settle = [], time.monotonic() + seconds, SETTLE
    while time.monotonic() < end or len(costs) < 3:
        router.send_multipart([route, b"send"])
        time.sleep(settle)
        before = time.thread_time_ns()
        try:
            for left in range(batch, 0, -1):  # noqa: B007
                receive()
        except zmq.Again:  # on a busy machine they do not lie there so soon: this batch says nothing
            for _ in range(left):
                router.recv_multipart()
            settle *= 2
            continue
        costs.append((time.thread_time_ns() - before) / batch / 1000)
    return statistics.median(costs)


def sending(send: Callable[[], object], pause: float, seconds: float) -> float:
    """Cost of `send`; with a pause the I/O thread sleeps and each send must wake it."""
    costs, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(costs) < 3:
        if pause:
            time.sleep(pause)
        before = time.thread_time_ns()
        calls = 1 if pause else 50
        for _ in range(calls):
            send()
        costs.append((time.thread_time_ns() - before) / calls / 1000)
    return statistics.median(costs)


def receive_costs(address: str, size: int, seconds: float) -> Iterator[tuple[str, float]]:
    with router_and_peer(address, size) as (router, route):

        def extension() -> None:
            RECV(router, NOBLOCK)
            RECV(router, NOBLOCK)

        def extension_checked() -> None:
            RECV(router, NOBLOCK)
            if RECV(router, NOBLOCK, False).more:
                raise AssertionError

        def extension_rcvmore() -> None:
            RECV(router, NOBLOCK)
            RECV(router, NOBLOCK)
            if GET(router, 13):  # RCVMORE
                raise AssertionError

        def extension_frame_bytes() -> None:
            RECV(router, NOBLOCK)
            frame = RECV(router, NOBLOCK, False)
            if frame.more:
                raise AssertionError
            frame.bytes  # noqa: B018  (the copy is what is measured)

        def sugar() -> None:
            router.recv(NOBLOCK)
            router.recv(NOBLOCK)

        buffer = memoryview(bytearray(max(size, 256)))
        into = _zmq.Socket.recv_into

        def recv_into() -> None:
            RECV(router, NOBLOCK)
            into(router, buffer, flags=NOBLOCK)

        more, header = SNDMORE | NOBLOCK, bytes(48)

        def forwarded(send: Callable[[_zmq.Frame], object]) -> Callable[[], object]:
            def forward() -> None:
                RECV(router, NOBLOCK)
                frame = RECV(router, NOBLOCK, False)
                if frame.more:
                    raise AssertionError
                SEND(router, route, more)
                send(frame)

            return forward

        def in_place(frame: _zmq.Frame) -> None:
            PATCH(frame, 0, header)
            SEND(router, frame, NOBLOCK)

        concat = forwarded(lambda frame: SEND(router, header + frame.bytes[48:], NOBLOCK))
        joined = forwarded(lambda frame: SEND(router, b"".join((header, frame.buffer[48:])), NOBLOCK))
        shared = forwarded(lambda frame: SEND(router, b"".join((header, frame.buffer[48:])), NOBLOCK, False))

        shapes: list[tuple[str, Callable[[], object]]] = [
            ("extension recv x2, not checked", extension),
            ("extension recv x2 + get(RCVMORE)", extension_rcvmore),
            ("extension recv + recv(copy=False).more", extension_checked),
            ("  the same + .bytes", extension_frame_bytes),
            ("extension recv + recv_into", recv_into),
            ("  and send: head + frame.bytes[48:]", concat),
            ("  and send: join of head and frame.buffer[48:]", joined),
            ("  and send: the same, copy=False", shared),
            ("  and send: head patched in the Frame, Frame sent", forwarded(in_place)),
            ("sugar recv x2", sugar),
            ("recv_multipart()", lambda: router.recv_multipart(NOBLOCK)),
            ("recv_multipart(copy=False)", lambda: router.recv_multipart(NOBLOCK, copy=False)),
        ]
        for name, receive in shapes:
            yield f"recv 2 frames: {name}", receiving(router, route, batch_of(size), receive, seconds)


def send_costs(address: str, size: int, seconds: float) -> Iterator[tuple[str, float]]:
    body = bytes(size)
    for mandatory in (True, False):
        with router_and_peer(address, size, mandatory=mandatory) as (router, route):
            more = SNDMORE | NOBLOCK

            def extension() -> None:
                SEND(router, route, more)  # noqa: B023
                SEND(router, body, NOBLOCK)

            def extension_frame() -> None:
                SEND(router, route, more)  # noqa: B023
                SEND(router, body, NOBLOCK, False)

            name = "mandatory" if mandatory else "not mandatory"
            yield f"send 2 frames: extension, {name}", sending(extension, 0, seconds)
            if not mandatory:
                continue
            yield "send 2 frames: extension, I/O thread asleep", sending(extension, 0.002, seconds)
            yield "send 2 frames: extension, copy=False", sending(extension_frame, 0, seconds)

            def sugar() -> None:
                router.send(route, more)  # noqa: B023
                router.send(body, NOBLOCK)

            def multipart() -> None:
                router.send_multipart([route, body], NOBLOCK)

            yield "send 2 frames: sugar send x2", sending(sugar, 0, seconds)
            yield "send 2 frames: send_multipart", sending(multipart, 0, seconds)


def raise_again(router: zmq.Socket[bytes]) -> None:
    try:
        RECV(router, NOBLOCK)
    except zmq.Again:
        pass


def unroutable(router: zmq.Socket[bytes]) -> None:
    try:
        SEND(router, b"nobody", SNDMORE | NOBLOCK)
    except zmq.ZMQError:
        pass


def times(call: Callable[[], object], count: int = 500) -> Callable[[], int]:
    def batch() -> int:
        for _ in range(count):
            call()
        return count

    return batch


def readiness_costs(seconds: float) -> Iterator[tuple[str, float]]:
    """How to learn that nothing (or something) has arrived."""
    with router_and_peer("tcp://127.0.0.1:*", 128) as (router, _):
        context = router.context
        others = [context.socket(zmq.ROUTER) for _ in range(2)]
        for other in others:
            other.bind("tcp://127.0.0.1:*")
        three = [router, *others]
        poller = zmq.Poller()
        for sock in three:
            poller.register(sock, zmq.POLLIN)
        pairs = [(sock, POLLIN) for sock in three]
        calls: list[tuple[str, Callable[[], object]]] = [
            ("empty: extension recv that raises zmq.Again", lambda: raise_again(router)),
            ("empty: extension get(EVENTS)", lambda: GET(router, EVENTS)),
            ("empty: sugar get(EVENTS)", lambda: router.get(zmq.EVENTS)),
            ("empty: sugar .events attribute", lambda: router.events),
            ("empty: sugar socket.poll(0)", lambda: router.poll(0)),
            ("empty: Poller.poll(0) of 3 sockets", lambda: poller.poll(0)),
            ("empty: zmq_poll(0) of 3 sockets", lambda: _zmq.zmq_poll(pairs, 0)),
            ("unroutable id: send that raises EHOSTUNREACH", lambda: unroutable(router)),
            ("time.monotonic()", time.monotonic),
        ]
        for name, call in calls:
            yield name, per_call(times(call), seconds)


def costs(seconds: float) -> Iterator[tuple[str, str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        for transport, address in (("tcp", "tcp://127.0.0.1:*"), ("ipc", f"ipc://{folder}/s")):
            for size in (128, 65536):
                where = f"{transport} {size}"
                for name, cost in receive_costs(address, size, seconds):
                    yield where, name, cost
                for name, cost in send_costs(address, size, seconds):
                    yield where, name, cost
    for name, cost in readiness_costs(seconds):
        yield "", name, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4, help="for each figure")
    options = parser.parse_args()
    print(f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}; us of CPU in the calling thread")
    for where, name, cost in costs(options.seconds):
        print(f"{where:10} {name:58} {cost:7.2f}", flush=True)


if __name__ == "__main__":
    main()
