"""A master as far as clients see it: a control and a frontend ROUTER in a thread, and a TCP proxy that can cut.

What it answers is a function of the test: `answer(fake, request) -> (code, value) | None`, None for "not yet".
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import NamedTuple

import zmq

from rota.common import messages, sockets, wire
from rota.common.body import decode_call, encode_result

PATIENCE_S = 10.0


class Request(NamedTuple):
    session: bytes
    number: int
    epoch: int
    flags: int
    time_ms: int
    upto: int
    below: int
    target: str
    meta: bytes
    body: bytes

    @property
    def args(self) -> list[object]:
        return decode_call(self.body)[0]

    @property
    def kwargs(self) -> dict[str, object]:
        return decode_call(self.body)[1]


class _Session:
    def __init__(self) -> None:
        self.route = b""
        self.token = 0
        self.sequence = 0
        self.known: set[int] = set()
        self.answers: dict[int, tuple[int, int, bytes]] = {}  # number → sequence, code, body


Answer = Callable[["FakeFrontend", Request], "tuple[int, object] | None"]


def echo(_: FakeFrontend, request: Request) -> tuple[int, object]:
    args, kwargs = decode_call(request.body)
    return 0, kwargs or args


class FakeFrontend:
    """`with FakeFrontend() as fake: Client(fake.address)`. Attributes may be changed while it runs."""

    def __init__(self, answer: Answer = echo, ports: tuple[int, int] = (0, 0)) -> None:
        self.answer = answer
        self.verb: Callable[[messages.Verb], messages.Result] | None = None
        self.events: list[dict[str, object]] = []
        self.epoch = 1
        self.state = "active"
        self.other = ""
        self.deaf = False  # connected, and nothing is read or said: a black hole
        self.max_message = 1 << 20
        self.refusal: messages.Refusal | None = None
        self.refusals = inf  # so many HELLOs get it
        self.frontend_port = 0  # what it tells; 0: its own
        self.seen: list[Request] = []
        self.counts: Counter[str] = Counter()
        self.acks: list[tuple[int, int]] = []
        self.sessions: dict[bytes, _Session] = {}
        self._routes: dict[bytes, bytes] = {}
        self._orders: list[Callable[[], None]] = []
        self._ctx = sockets.context()
        self.control = sockets.router(self._ctx, sockets.CONTROL)
        self.frontend = sockets.router(self._ctx, sockets.FRONTEND, 4 << 20)
        self.ports = tuple(_bind(sock, port) for sock, port in zip((self.control, self.frontend), ports, strict=True))
        self.address = f"tcp://127.0.0.1:{self.ports[0]}"
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeFrontend:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "what this fake was asked last, it did not answer"

    def later(self, order: Callable[[], None]) -> None:
        """Do this in the thread that owns the sockets."""
        self._orders.append(order)

    def now(self, order: Callable[[], None]) -> None:
        """The same; returns when it is done."""
        done = threading.Event()
        self.later(order)
        self.later(done.set)
        assert done.wait(PATIENCE_S)

    def reply(self, request: Request, code: int, value: object) -> None:
        """Answer now; call it from `answer` or through `later`."""
        session = self.sessions[request.session]
        session.sequence += 1
        body = value if isinstance(value, bytes) and code else encode_result(value)
        session.answers[request.number] = (session.sequence, code, body)
        self._say_again(session, request.number)

    def stand_by(self) -> None:
        """As one that stepped down: its clients are unknown, and sent away."""
        self.state = "standby"
        self.forget_sessions()

    def take_over(self, other: FakeFrontend) -> None:
        """With all that the other one knew."""
        self.epoch, self.state = other.epoch + 1, "active"
        for name, session in other.sessions.items():
            own = self.sessions[name] = _Session()
            own.known, own.answers, own.sequence = set(session.known), dict(session.answers), session.sequence

    def say_goodbye(self) -> None:
        """BYE to all its clients; run it through `later`."""
        for session in self.sessions.values():
            upto = max(session.known, default=0)
            self.send(self.frontend, session.route, wire.head(wire.BYE, session.token, self.epoch, number=upto))

    def forget_sessions(self) -> None:
        """As after a restart, without losing the connection."""
        self.sessions.clear()
        self._routes.clear()

    # ---- in the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self.control, zmq.POLLIN)
        poller.register(self.frontend, zmq.POLLIN)
        try:
            while not self._stop:
                self._turn(poller)
        finally:
            self.control.close(0)
            self.frontend.close(0)
            self._ctx.term()

    def _turn(self, poller: zmq.Poller) -> None:
        for sock, _ in poller.poll(5):
            if self.deaf:
                break
            route, *frames = sock.recv_multipart()
            self._frame(sock, route, frames[-1])
        if self.deaf:
            time.sleep(0.005)  # what is not read makes each poll return at once
        while self._orders:
            self._orders.pop(0)()

    def _frame(self, sock: zmq.Socket[bytes], route: bytes, frame: bytes) -> None:
        head = wire.parse_head(frame)
        body = frame[head.head_len :]
        if head.kind == wire.BUNDLE:
            for each in wire.split(frame, wire.parse(frame)):
                self._frame(sock, route, each)
        elif head.kind == wire.HELLO:
            self._hello(sock, route, messages.decode(body))
        elif head.kind == wire.BYE:
            self.counts["bye"] += 1
            self._routes.pop(route, None)
        elif sock is self.control:
            self._control(route, head, messages.decode(body))
        else:
            self._data(route, head, frame)

    def _hello(self, sock: zmq.Socket[bytes], route: bytes, hello: messages.Message) -> None:
        self.counts[type(hello).__name__] += 1
        if self.refusal is not None and self.refusals > 0:
            self.refusals -= 1
            self.send(sock, route, messages.framed(wire.REFUSED, 0, self.refusal))
            return
        if self.state != "active" and isinstance(hello, messages.ClientHello):
            refusal = messages.Refusal("standby", "this master stands by", 0, [1, 1])
            self.send(sock, route, messages.framed(wire.REFUSED, 0, refusal))
            return
        token, resumed = random.getrandbits(64), False
        if isinstance(hello, messages.ClientHello):
            resumed = hello.session in self.sessions
            session = self.sessions.setdefault(hello.session, _Session())
            self._routes.pop(session.route, None)
            session.route, session.token = route, token
            self._routes[route] = hello.session
        welcome = messages.Welcome(
            1,
            self.epoch,
            "fake",
            resumed=resumed,
            frontend_port=self.frontend_port or self.ports[1],
            max_message=self.max_message,
            state=self.state,
            other=self.other,
        )
        self.send(sock, route, wire.head(wire.WELCOME, token, self.epoch) + messages.encode(welcome))

    def _control(self, route: bytes, head: wire.Head, message: messages.Message) -> None:
        if isinstance(message, messages.Follow):
            reply: messages.Message = messages.Happened(
                message.id, [event for event in self.events if int(str(event["number"])) > message.since]
            )
        else:
            assert isinstance(message, messages.Verb) and self.verb is not None
            reply = self.verb(message)
        self.send(self.control, route, messages.framed(wire.CONTROL, head.token, reply))

    def _data(self, route: bytes, head: wire.Head, frame: bytes) -> None:
        session_id = self._routes.get(route, b"")
        session = self.sessions.get(session_id)
        if session is None or session.token != head.token:
            self.counts["who"] += 1
            self.send(self.frontend, route, wire.head(wire.WHO, 0))
        elif head.kind == wire.REQUEST:
            self._request(session_id, session, head, frame)
        elif head.kind == wire.CANCEL:
            self.counts["cancel"] += 1
        elif head.kind == wire.ACK:
            self.acks.append((head.upto, head.below))

    def _request(self, session_id: bytes, session: _Session, head: wire.Head, frame: bytes) -> None:
        at = wire.WITH_ORIGIN if head.flags & wire.ORIGIN else wire.HEADER_SIZE
        tail = frame[at : head.head_len]
        request = Request(
            session_id,
            head.number,
            head.epoch,
            head.flags & ~wire.ORIGIN,
            head.time,
            head.upto,
            head.below,
            tail[: head.code].decode(),
            tail[head.code :],
            frame[head.head_len :],
        )
        self.seen.append(request)
        resent = bool(head.flags & wire.RESENT)
        self.counts["resent" if resent else "request"] += 1
        if not resent and head.number <= max(session.known, default=0):
            self.counts["replay"] += 1
        elif head.number in session.answers:
            self._say_again(session, head.number)
        elif head.number not in session.known:
            session.known.add(head.number)
            self.counts["executed"] += 1
            answer = self.answer(self, request)
            if answer is not None:
                self.reply(request, *answer)

    def _say_again(self, session: _Session, number: int) -> None:
        sequence, code, body = session.answers[number]
        head = wire.head(wire.ANSWER, session.token, self.epoch, number=number, upto=sequence, code=code)
        self.send(self.frontend, session.route, head + body)

    def send(self, sock: zmq.Socket[bytes], route: bytes, frame: bytes) -> None:
        """Counts what nobody is there for: a client may leave at what it was sent before."""
        try:
            sock.send_multipart([route, frame], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.counts["unsendable"] += 1


def _bind(sock: zmq.Socket[bytes], port: int) -> int:
    sock.bind(f"tcp://127.0.0.1:{port or '*'}")
    return int(sock.last_endpoint.rpartition(b":")[2])


class Proxy:
    """A TCP proxy before one port. `cut()` ends what is connected; `refuse` what comes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.refuse = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _shut(end)

    def close(self) -> None:
        _shut(self._listener)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                _shut(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _shut(near)
                continue
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    _shut(sink)
    _shut(source)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@contextmanager
def proxied(fake: FakeFrontend) -> Iterator[Proxy]:
    """The fake's frontend behind a proxy, and clients are told so."""
    proxy = Proxy(fake.ports[1])
    fake.frontend_port = proxy.port
    try:
        yield proxy
    finally:
        proxy.close()
