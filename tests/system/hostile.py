"""Peers that send what they should not: valid frames of every kind, damaged in every way, from a seed."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import zmq
from fuzz.damage import damaged

from rota.common import messages, wire
from rota.common.limits import CREDIT_MAX

ANSWER_MS = 5000
FRAMES_A_PEER = 100
BIG = 1 << 20
SERVICE = "ghostly"  # of the hostile process: what good clients ask for must not come to it


class Peer:
    """A DEALER that sends any bytes."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.token = 0
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.linger = 0
        self._dealer.sndtimeo = ANSWER_MS
        self._dealer.rcvtimeo = ANSWER_MS
        self._dealer.connect(address)

    def close(self) -> None:
        self._dealer.close(0)
        self._context.term()

    def send(self, *frames: bytes) -> None:
        self._dealer.send_multipart(frames)

    def receive(self, *kinds: int) -> tuple[wire.Head, bytes]:
        """The next frame of one of these kinds. Raises zmq.Again when none comes."""
        while True:
            frame = self._dealer.recv()
            head = wire.parse_head(frame)
            if not kinds or head.kind in kinds:
                return head, frame[head.head_len :]

    def hello(self, message: messages.Message) -> wire.Head:
        self.send(messages.framed(wire.HELLO, 0, message))
        head, _ = self.receive(wire.WELCOME, wire.REFUSED)
        self.token = head.token
        return head

    def drain(self) -> None:
        """Read away what was answered: a full pipe would make the master drop, which is another test."""
        while self._dealer.poll(0):
            self._dealer.recv_multipart()


@contextmanager
def peer(address: str) -> Iterator[Peer]:
    made = Peer(address)
    try:
        yield made
    finally:
        made.close()


def as_operator() -> messages.OperatorHello:
    return messages.OperatorHello(list(wire.VERSIONS), "hostile")


def as_client(session: bytes) -> messages.ClientHello:
    return messages.ClientHello(list(wire.VERSIONS), session)


def as_agent(name: str, boot: str) -> messages.AgentHello:
    """Of a node with one process, whose ticket is known to whoever asks."""
    started = messages.Started(incarnation(name, boot), SERVICE, b"t" * 16, 1)
    return messages.AgentHello(list(wire.VERSIONS), name, boot, 0, 1, [SERVICE], {}, [started], [], "active", 0)


def incarnation(name: str, boot: str) -> str:
    return f"{name}.{boot[:6]}.1"


def as_process(name: str, boot: str) -> messages.ProcessHello:
    handlers = {"run": messages.Handler("yes")}
    return messages.ProcessHello(
        list(wire.VERSIONS),
        incarnation(name, boot),
        b"t" * 16,
        SERVICE,
        "1",
        "0" * 16,
        handlers,
        CREDIT_MAX,
        1,
        0,
        0,
        0,
        [],
    )


# ---- valid frames ---------------------------------------------------------------------------------------------------


def client_frames(token: int, chance: random.Random) -> list[bytes]:
    """Some requests reach processes, with a body that is none."""

    def request(
        number: int, target: bytes = b"proof.nothing", flags: int = 0, meta: bytes = b"", body: bytes = b""
    ) -> bytes:
        head = wire.head(wire.REQUEST, token, 1, 1000, number, 0, 1, len(target), flags, target + meta)
        return head + (body or b"\x92\x90\x80")

    numbers = sorted(chance.getrandbits(32) for _ in range(8))
    frames = [
        messages.framed(wire.HELLO, 0, as_client(chance.randbytes(16))),
        *(request(number, b"proof.pid", body=chance.randbytes(20)) for number in numbers),
        request(numbers[-1] + 1, b"proof.pid", wire.META, b"\x81\xa1k\xa1x"),
        request(numbers[-1] + 2, b"ghostly.run"),
        request(1),
        request(1 << 63),
        request(2, flags=wire.RESENT),
        request(3, flags=wire.META, meta=b"\x81\xa1k\xa1x"),
        wire.head(wire.CANCEL, token, number=numbers[0]),
        wire.head(wire.ACK, token, upto=chance.getrandbits(64)),
        wire.head(wire.CHUNK, token),
        wire.head(wire.WHO, token),
        _foreign_bye(chance),
    ]
    return [*frames, wire.bundles(frames)[0][1]]


def process_frames(token: int, chance: random.Random) -> list[bytes]:
    origin = wire.ORIGIN_STRUCT.pack(chance.randbytes(16), chance.getrandbits(64))
    frames = [
        messages.framed(wire.HELLO, 0, as_process("nobody", "bbbbbb")),
        wire.head(wire.REPLY, token, 1, 5, 1, 1, 1) + b"\xc0",
        wire.head(wire.REPLY, token, 1, 5, chance.getrandbits(64), chance.getrandbits(64), 1, flags=wire.RESENT) + b"x",
        wire.head(wire.REPLY, token, 99, 5, 1, 1, 1, flags=wire.ORIGIN | wire.RESENT, tail=origin) + b"x",
        wire.head(wire.REPLY, token, 1, 5, 1, 1, 1, code=chance.getrandbits(16)),
        wire.head(wire.DELIVER, token, 1, 5, 1, 1, 1),
        _foreign_bye(chance),
    ]
    return [*frames, wire.bundles(frames)[0][1]]


def operator_frames(token: int, chance: random.Random) -> list[bytes]:
    head = wire.head(wire.CONTROL, token)
    verbs: list[messages.Message] = [
        messages.Verb(1, "status", {}),
        messages.Verb(2, "drain", {"nodes": ["nobody"], "deadline_s": -1.0}),
        messages.Verb(3, "wait", {"condition": "ready", "names": ["x"], "timeout_s": 1e308}),
        messages.Verb(4, "scale", {"service": "proof", "processes": -chance.getrandbits(31)}),
        messages.Verb(5, "events", {"since": -1, "limit": 1 << 62}),
        messages.Verb(6, "forget", {"nodes": [["node-1"]]}),
        messages.Verb(7, "rejoin", {"tags": {"a": 1}}),
        messages.Verb(8, "no such verb", {}),
        messages.Follow(9, 1 << 62),
        messages.Beat(1),
    ]
    hello = messages.framed(wire.HELLO, 0, as_operator())
    return [*(head + messages.encode(each) for each in verbs), hello, _foreign_bye(chance)]


def agent_frames(token: int, chance: random.Random) -> list[bytes]:
    head = wire.head(wire.CONTROL, token)
    own = incarnation("ghost", "aaaaaa")
    row = messages.Row(chance.getrandbits(64), 1, b"s" * 16, 1, 1)
    said: list[messages.Message] = [
        messages.Beat(chance.getrandbits(64)),
        messages.Started("node-1.x", SERVICE, b"", 0),
        messages.Started(incarnation("ghost", "aaaaaa")[:-1] + "2", "\0", b"", -1),
        messages.Exited("node-1.x", "proof", 0, "", 0, [row], "x" * 100_000),
        messages.Exited(f"{own}0", SERVICE, -9, "", chance.getrandbits(64), [row, row], ""),
        messages.Failing(SERVICE, chance.getrandbits(16), -1, "no"),
        messages.Recalled(own, chance.getrandbits(64), chance.getrandbits(64)),
        messages.Usage({"node-1": -1, own: 1 << 63}),
        messages.Verb(1, "drain", {"all": True, "force": True}),
    ]
    hellos = [
        as_agent("ghost", "aaaaaa"),
        as_agent("", ""),
        as_agent("\0", "x")._replace(versions=[1, 1, 1], capacity=-1),
    ]
    greetings = [messages.framed(wire.HELLO, 0, each) for each in hellos]
    return [*(head + messages.encode(each) for each in said), *greetings, _foreign_bye(chance)]


def _foreign_bye(chance: random.Random) -> bytes:
    return wire.head(wire.BYE, chance.getrandbits(64))


# ---- floods ---------------------------------------------------------------------------------------------------------


class Role(NamedTuple):
    """Who a hostile peer claims to be, and what such a one sends."""

    name: str
    socket: str
    hello: Callable[[random.Random], messages.Message]
    frames: Callable[[int, random.Random], list[bytes]]


ROLES = (
    Role("client", "frontend", lambda chance: as_client(chance.randbytes(16)), client_frames),
    Role("agent", "control", lambda chance: as_agent("ghost", "aaaaaa"), agent_frames),
    Role("process", "backend", lambda chance: as_process("ghost", "aaaaaa"), process_frames),
    Role("operator", "control", lambda chance: as_operator(), operator_frames),
)


def flood(role: Role, address: str, count: int, chance: random.Random) -> None:
    """`count` damaged frames, by one peer after the other: what one has sent soon makes it a stranger."""
    for _ in range(count // FRAMES_A_PEER):
        with peer(address) as target:
            target.hello(role.hello(chance))
            frames = role.frames(target.token, chance)
            for _ in range(FRAMES_A_PEER):
                target.send(*damaged(frames, chance))
            target.drain()


def oversized(address: str) -> None:
    """More than the transport takes: the connection is cut."""
    with peer(address) as big:
        big.send(wire.head(wire.REQUEST, 1) + bytes(4 * BIG))


def not_zmtp(port: int, chance: random.Random) -> None:
    """Bytes that are no ZMTP at all; and a connection that says nothing."""
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f" + chance.randbytes(500)):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            try:
                sock.sendall(greeting)
            except OSError:
                pass  # it was cut while we spoke
