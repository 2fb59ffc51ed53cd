"""Whoever speaks to one socket of a master, and the genuine frames of each: what the fuzzer damages."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import zmq
from system import hostile

from rota.common import messages, wire

PATIENCE_MS = 20_000  # a master that takes nothing for so long hangs
BEAT_S = 0.1
BAIT = 20  # requests in flight at a fuzzed process: half of what it replies is about them
BODY = b"\x92\x90\x80"  # a call without arguments


class Hung(Exception):
    """The master took nothing, or did not answer, within PATIENCE_MS."""


class Peer:
    """A raw DEALER. What it is told is read away, except where an answer is waited for."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self.dealer = context.socket(zmq.DEALER)
        self.dealer.linger = 0
        self.dealer.sndtimeo = self.dealer.rcvtimeo = PATIENCE_MS
        self.dealer.connect(address)
        self.token = 0

    def close(self) -> None:
        self.dealer.close()

    def send(self, message: list[bytes]) -> None:
        try:
            self.dealer.send_multipart(message) if len(message) > 1 else self.dealer.send(message[0])
        except zmq.Again:
            raise Hung("the master takes no more frames") from None

    def hello(self, hello: messages.Message) -> wire.Head:
        self.send([messages.framed(wire.HELLO, 0, hello)])
        head = self.receive(wire.WELCOME, wire.REFUSED)
        self.token = head.token
        return head

    def say(self, message: messages.Message) -> None:
        self.send([messages.framed(wire.CONTROL, self.token, message)])

    def receive(self, *kinds: int) -> wire.Head:
        try:
            while True:
                head = wire.parse_head(self.dealer.recv_multipart()[0])
                if head.kind in kinds:
                    return head
        except zmq.Again:
            raise Hung(f"the master sends none of {kinds}") from None

    def drain(self) -> None:
        """Read away what was answered, but learn the token: a damaged HELLO may have been answered with another one."""
        while True:
            try:
                frame = self.dealer.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return
            if frame[6] == wire.WELCOME:
                self.token = wire.parse_head(frame).token


class Stage(NamedTuple):
    """Where a flood plays: the addresses by socket."""

    context: zmq.Context[zmq.Socket[bytes]]
    addresses: dict[str, str]

    @contextmanager
    def peer(self, socket: str) -> Iterator[Peer]:
        made = Peer(self.context, self.addresses[socket])
        try:
            yield made
        finally:
            made.close()


class Guest(NamedTuple):
    """A welcomed peer, the frames that are valid for it, and what keeps others alive that it needs."""

    peer: Peer
    hello: messages.Message
    frames: Callable[[int], list[bytes]]  # by token
    beat: Callable[[], None] = lambda: None


Guests = Iterator[Guest]


def clients(stage: Stage, chance: random.Random) -> Guests:
    while True:
        hello = hostile.as_client(chance.randbytes(16))
        with stage.peer("frontend") as peer:
            yield Guest(peer, hello, lambda token: _client_frames(token, hello, chance))  # noqa: B023


def _client_frames(token: int, hello: messages.Message, chance: random.Random) -> list[bytes]:
    """Its HELLO is its own: another one would make it a stranger."""
    _, *frames, _ = hostile.client_frames(token, chance)
    frames.append(messages.framed(wire.HELLO, 0, hello))
    return [*frames, wire.bundles(frames)[0][1]]


def agents_and_operators(stage: Stage, chance: random.Random) -> Guests:
    while True:
        with stage.peer("control") as peer:
            yield Guest(peer, hostile.as_agent("ghost", "aaaaaa"), lambda token: hostile.agent_frames(token, chance))
        with stage.peer("control") as peer:
            yield Guest(peer, hostile.as_operator(), lambda token: _operator_frames(token, chance))


def _operator_frames(token: int, chance: random.Random) -> list[bytes]:
    said: list[messages.Message] = [
        messages.Verb(11, "wait", {"condition": "ready", "names": ["none"], "timeout_s": 600.0}),
        messages.Verb(12, "recheck", {"nodes": ["ghost"], "reason": "x" * 100}),
        messages.Follow(chance.getrandbits(31), 0),
    ]
    head = wire.head(wire.CONTROL, token)
    return [*hostile.operator_frames(token, chance), *(head + messages.encode(each) for each in said)]


def processes(stage: Stage, chance: random.Random) -> Guests:
    """Of a node whose agent is genuine; each has requests in flight that a client waits for."""
    with stage.peer("control") as agent, stage.peer("frontend") as client:
        agent.hello(hostile.as_agent("ghost", "aaaaaa"))
        beaten = 0.0

        def beat() -> None:
            nonlocal beaten
            if time.monotonic() - beaten > BEAT_S:
                beaten = time.monotonic()
                agent.drain()
                client.drain()
                agent.say(messages.Beat(1))

        for number in itertools.count(1):
            own = f"ghost.aaaaaa.{number + 1}"
            agent.say(messages.Started(own, hostile.SERVICE, b"t" * 16, 1))
            agent.say(messages.Beat(number))
            agent.receive(wire.CONTROL)  # so its word has come
            client.hello(hostile.as_client(chance.randbytes(16)))
            for each in range(1, BAIT + 1):
                client.send([_bait(client.token, each)])
            with stage.peer("backend") as peer:
                hello = hostile.as_process("ghost", "aaaaaa")._replace(incarnation=own)
                yield Guest(peer, hello, lambda token: _process_frames(token, chance), beat)
            client.send([wire.head(wire.BYE, client.token)])  # nothing is kept for it
            agent.say(messages.Exited(own, hostile.SERVICE, -9, "was killed", 0, [], ""))


def _bait(token: int, number: int) -> bytes:
    target = f"{hostile.SERVICE}.run".encode()
    return wire.head(wire.REQUEST, token, 1, 1000, number, 0, 0, len(target), 0, target) + BODY


def _process_frames(token: int, chance: random.Random) -> list[bytes]:
    replies = [wire.head(wire.REPLY, token, 1, 5, number, number, number) + b"\xc0" for number in range(1, BAIT // 2)]
    return [*replies, *hostile.process_frames(token, chance)]


SOCKETS: dict[str, Callable[[Stage, random.Random], Guests]] = {
    "control": agents_and_operators,
    "frontend": clients,
    "backend": processes,
}
