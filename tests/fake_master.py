"""A master that does what a test says: two real ROUTERs, the real codec, no decisions of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import zmq

from rota.common import messages, sockets, wire
from rota.common.body import encode_call

Kind = TypeVar("Kind")

PATIENCE_S = 20.0  # of a machine that does other things too; nothing here takes a second when it is idle


class Frame(NamedTuple):
    route: bytes
    head: wire.Head
    flags: int
    origin: tuple[bytes, int] | None
    body: bytes

    @property
    def message(self) -> Any:
        return messages.decode(self.body)


class FakeMaster:
    """`control` and `backend` hold what came, in its order. A test takes it with `expect`."""

    def __init__(self, name: str = "fake") -> None:
        self.epoch = 1
        self.name = name
        self.lease_ms = 0
        self.token = int.from_bytes(os.urandom(8), "little") >> 1
        self._ctx = sockets.context()
        self._control = sockets.router(self._ctx, sockets.CONTROL)
        self._backend = sockets.router(self._ctx, sockets.BACKEND)
        self.control_port = self._control.bind_to_random_port("tcp://127.0.0.1")
        self.backend_port = self._backend.bind_to_random_port("tcp://127.0.0.1")
        self.control: list[Frame] = []
        self.backend: list[Frame] = []
        self.bundles = 0  # frames with several messages
        self.agent = b""
        self.voters: list[Frame] = []  # what came over the other connection of an agent
        self.voter = b""  # its route, once welcomed
        self.beat: messages.Beat | None = None  # the last one
        self.process = b""  # route of the one that was welcomed last
        self.answer_beats = True

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.control_port}"

    @property
    def backend_address(self) -> str:
        return f"tcp://127.0.0.1:{self.backend_port}"

    def close(self) -> None:
        self._control.close(0)
        self._backend.close(0)
        self._ctx.term()

    def rebind_backend(self) -> None:
        """All connections of processes are lost, the address stays."""
        self._backend.close(0)
        self._backend = self._bound(sockets.BACKEND, self.backend_address)

    def rebind_control(self) -> None:
        """Those of agents."""
        self._control.close(0)
        self._control = self._bound(sockets.CONTROL, self.address)

    def _bound(self, role: str, address: str) -> zmq.Socket[bytes]:
        made = sockets.router(self._ctx, role)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                made.bind(address)
                return made
            except zmq.ZMQError:  # the old one is closed by another thread
                assert time.monotonic() < deadline
                time.sleep(0.005)

    # ---- receiving --------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._backend, zmq.POLLIN)
        for sock, _ in poller.poll(20):
            route, frame = sock.recv_multipart()
            parsed = _parsed(route, frame)
            if parsed.head.kind == wire.BUNDLE:
                self.bundles += 1
                self.backend += [_parsed(route, each) for each in wire.split(frame, wire.parse(frame))]
            elif sock is self._backend:
                self.backend.append(parsed)
            elif _is_of_voter(parsed):
                self.voters.append(parsed)
            elif not self._is_beat(parsed):
                self.control.append(parsed)

    def until(self, condition: Callable[[], Kind | None], what: str = "") -> Kind:
        """Pumps until the condition gives something true; that."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < deadline, (
                f"{what or condition} did not come; there is {self.control} {self.backend}"
            )
            self.pump()
        return found

    def expect(self, wanted: type[Kind], matches: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """The next control message of this type; it and what stands before it is taken away."""

        def find() -> Kind | None:
            for index, frame in enumerate(self.control):
                if frame.head.kind in (wire.HELLO, wire.CONTROL) and isinstance(frame.message, wanted):
                    if matches(frame.message):
                        del self.control[: index + 1]
                        if frame.head.kind == wire.HELLO:
                            self.agent = frame.route
                        return frame.message
            return None

        return self.until(find, wanted.__name__)

    def expect_frame(self, kind: int, matches: Callable[[Frame], bool] = lambda _: True) -> Frame:
        """The same for the backend, by kind."""

        def find() -> Frame | None:
            for index, frame in enumerate(self.backend):
                if frame.head.kind == kind and matches(frame):
                    del self.backend[: index + 1]
                    return frame
            return None

        return self.until(find, f"kind {kind}")

    def _is_beat(self, frame: Frame) -> bool:
        if frame.head.kind != wire.CONTROL or not isinstance(frame.message, messages.Beat | messages.Usage):
            return False
        if isinstance(frame.message, messages.Beat):
            self.beat = frame.message
            if self.answer_beats:
                with suppress(zmq.ZMQError):  # it may be gone by now
                    self.tell(frame.message)
        return True

    # ---- sending ----------------------------------------------------------------------------------------------------

    def tell(self, message: messages.Message) -> None:
        self._control.send_multipart([self.agent, messages.framed(wire.CONTROL, self.token, message)])

    def welcome_agent(self, matches: Callable[[messages.AgentHello], bool] = lambda _: True) -> messages.AgentHello:
        hello = self.expect(messages.AgentHello, matches)
        self._welcome(self.agent, "active", self.lease_ms)
        return hello

    def welcome_voter(self, state: str = "standby") -> messages.VoterHello:
        frame = self.expect_of_voter(messages.VoterHello)
        self.voter = frame.route
        self._welcome(self.voter, state, 0)
        hello: messages.VoterHello = frame.message
        return hello

    def refuse_voter(self, code: str, retry_after_ms: int) -> None:
        route = self.expect_of_voter(messages.VoterHello).route
        refusal = messages.Refusal(code, "a sentence", retry_after_ms, [1, 1])
        self._control.send_multipart([route, messages.framed(wire.REFUSED, 0, refusal)])

    def expect_of_voter(self, *wanted: type[Any]) -> Frame:
        def find() -> Frame | None:
            for index, frame in enumerate(self.voters):
                if isinstance(frame.message, wanted):
                    del self.voters[: index + 1]
                    return frame
            return None

        return self.until(find, f"{wanted} over a voter link")

    def _welcome(self, route: bytes, state: str, lease_ms: int) -> None:
        port = self.backend_port
        welcome = messages.Welcome(1, self.epoch, self.name, backend_port=port, state=state, lease_ms=lease_ms)
        self._control.send_multipart([route, messages.framed(wire.WELCOME, self.token, welcome)])

    def tell_voter(self, message: messages.Message) -> None:
        self.send_voter(messages.framed(wire.CONTROL, self.token, message))

    def send_voter(self, frame: bytes) -> None:
        self._control.send_multipart([self.voter, frame])

    def ask(self, epoch: int, lease_ms: int = 50) -> messages.Grant | messages.Deny:
        """For the vote of the agent that was welcomed last."""
        self.tell_voter(messages.Vote(epoch, self.name, lease_ms))
        answer: messages.Grant | messages.Deny = self.expect_of_voter(messages.Grant, messages.Deny).message
        return answer

    def refuse_agent(self, code: str) -> None:
        self.expect(messages.AgentHello)
        refusal = messages.Refusal(code, "a sentence", 50, [1, 1])
        self._control.send_multipart([self.agent, messages.framed(wire.REFUSED, 0, refusal)])

    def welcome_process(self, upto: int = 0) -> messages.ProcessHello:
        frame = self.expect_frame(wire.HELLO)
        self.process = frame.route
        welcome = messages.Welcome(1, self.epoch, "fake", upto=upto)
        self.send(wire.head(wire.WELCOME, self.token, self.epoch) + messages.encode(welcome))
        hello: messages.ProcessHello = frame.message
        return hello

    def refuse_process(self, code: str, retry_after_ms: int = 20) -> None:
        frame = self.expect_frame(wire.HELLO)
        refusal = messages.Refusal(code, "a sentence", retry_after_ms, [1, 1])
        self.process = frame.route
        self.send(messages.framed(wire.REFUSED, 0, refusal))

    def send(self, frame: bytes) -> None:
        self._backend.send_multipart([self.process, frame])

    def deliver(
        self, number: int, handler: str, upto: int = 0, token: int = 0, timeout_ms: int = 30_000, **arguments: Any
    ) -> None:
        self.send(
            delivery(token or self.token, self.epoch, number, handler, upto, encode_call((), arguments), timeout_ms)
        )


def delivery(
    token: int, epoch: int, number: int, handler: str, upto: int = 0, body: bytes = b"", timeout_ms: int = 30_000
) -> bytes:
    """A DELIVER as the master makes it; the request's number is 1000 + that of the delivery."""
    target = handler.encode()
    tail = wire.ORIGIN_STRUCT.pack(b"s" * 16, (1000 + number) % (1 << 64)) + target
    head = wire.head(wire.DELIVER, token, epoch, timeout_ms, number, upto, 1, len(target), wire.ORIGIN, tail)
    return head + body


_OF_VOTERS = (messages.VoterHello, messages.Grant, messages.Deny)


def _is_of_voter(frame: Frame) -> bool:
    return frame.head.kind in (wire.HELLO, wire.CONTROL) and isinstance(frame.message, _OF_VOTERS)


def _parsed(route: bytes, frame: bytes) -> Frame:
    head = wire.parse_head(frame)
    origin = wire.ORIGIN_STRUCT.unpack_from(frame, wire.HEADER_SIZE) if head.flags & wire.ORIGIN else None
    return Frame(route, head, head.flags, origin, frame[head.head_len :])
