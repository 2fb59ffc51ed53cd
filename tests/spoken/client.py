"""A client whose masters say anything well-formed: of calls that are over, were never made, or stream."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar

from rota.client import beside, session
from rota.client.calls import WAITING_BYTES, WINDOW, Call
from rota.client.streams import StreamCall
from rota.common import messages, wire
from rota.common.body import encode_result
from rota.common.errors import Cancelled, Error
from rota.common.streams import CHUNK_MAX, Chunk, Credit, Outflow, Replay
from rota.common.wire import Body

from .chance import ODD, number
from .history import Violation
from .links import FakeLink, pretended

MASTERS = ("tcp://one:7700", "tcp://two:7700")
NUMBERS = (0, 1, 2, 3, 5, 100, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
BODIES = (
    b"",
    b"\xc1",
    b"\xc0",
    encode_result({"cause": "why", "retry_after_ms": 5}),
    encode_result({"cause": 1}),
    encode_result({"cause": "why", "retry_after_ms": -(2**63)}),
    encode_result({"cause": "why", "retry_after_ms": 2**64 - 1, "told": 7, "code": b"odd"}),
    encode_result({1: 2}),
    encode_result([]),
    b"\x81\xa4type" + b"\x91" * 1000 + b"\xc0",
    b"\x83\xa4type\x01\xa7message\xc0\xaetraceback_text\x90",
    bytes(wire.BUNDLE_BYTES_MAX + 9),
)
WORDS = ("standby", "candidate", "odd", "", "tcp://third:1", "third:7700", "a host", "é\n", "[::1]", "x" * 1001)
STEPS_MAX = 20  # of the owner's loop, until there is nothing to do at this moment
CALM_S = 3000.0  # without a master; by then all is over


class _Asked:
    """What the world knows of a call."""

    outcomes = 0
    withdrawn = False


class Plain(_Asked, Call):
    def finish(self, value: object, error: Error | None) -> None:
        _finished(self, error)


class Streaming(_Asked, StreamCall):
    world: ClientWorld
    chance: Random
    got = 0
    over = False

    def finish(self, value: object, error: Error | None) -> None:
        _finished(self, error)

    def came(self, data: Body, more: bool) -> None:
        if self.outcomes or self.withdrawn or self.over:
            raise Violation("something came of an answer that is over")
        self.got += len(data)
        self.over = not more
        if self.chance.random() < 0.1:
            self.world.withdraw(self)
        elif self.chance.random() < 0.7:
            self.into.taken(len(data))
            self.world.session.calls.say(self)

    def room(self) -> None:
        if isinstance(self.out, Outflow) and not self.out.blocked and self.chance.random() < 0.5:
            self.out.write(bytes(self.chance.choice([1, CHUNK_MAX, 3 * CHUNK_MAX])))
            if self.chance.random() < 0.2:
                self.room = lambda: None  # type: ignore[method-assign]
                self.out.end()


def _finished(call: Any, error: Error | None) -> None:
    call.outcomes += 1
    if call.outcomes > 1 or call.withdrawn:
        raise Violation(f"another outcome: {error!r}")
    if error is not None:
        str(error)


class ClientWorld:
    actions: ClassVar[Mapping[str, int]] = {
        "comes_up": 10,
        "asks": 12,
        "gives_up": 3,
        "master_answers": 14,
        "master_streams": 10,
        "master_says": 10,
        "master_greets": 10,
        "another_is_active": 2,
        "connection_breaks": 4,
        "connection_is_full": 2,
        "time_passes": 8,
    }

    masters: ClassVar[tuple[str, ...]] = MASTERS
    ended = False

    def __init__(self) -> None:
        self._pretended = pretended(session, beside)
        self.now = 1000.0
        self.chance = Random(7)
        self.session = session.Session(self.masters, chance=self.chance.random)
        self.calls: list[Any] = []
        self.born = 1
        self.sequence = 0

    def restore(self) -> None:
        self._pretended.close()

    # ---- its owner ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """As the loops of client.py and aio.py, until there is nothing to do now."""
        subject = self.session
        for _ in range(STEPS_MAX):
            more = subject.receive(self.now)
            subject.send(self.now)
            if not more and not subject.awaited() and subject.next_deadline() > self.now:
                return
        raise Violation(f"it does not come to rest at {self.now}: due at {subject.next_deadline()}")

    def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, max(self.now + 0.001, self.session.next_deadline()))
            self.step()

    def asks(self, chance: Random) -> None:
        for _ in range(chance.choice([1, 1, 3, 40])):
            kind = chance.choice([Plain, Plain, Streaming])
            call: Any = kind()
            call.address = b"a.b", 3, wire.MORE if kind is Streaming else 0
            call.body = bytes(chance.choice([0, 10, 10, wire.BUNDLE_BYTES_MAX + 1, 300_000]))
            call.timeout = chance.choice([0.001, 0.5, 5.0, 30.0, 300.0])
            call.deadline = self.now + call.timeout
            if kind is Streaming:
                call.world, call.chance = self, Random(chance.getrandbits(32))
                size = chance.choice([0, 1, CHUNK_MAX, 5 * CHUNK_MAX + 1])
                call.out = chance.choice([None, Outflow(), Replay(size, lambda offset, size: bytes(size))])
                if isinstance(call.out, Outflow) and chance.random() < 0.7:
                    call.out.write(bytes(10))
            self.calls.append(call)
            if (error := self.session.calls.submit(call)) is not None:
                call.finish(None, error)

    def gives_up(self, chance: Random) -> None:
        if self.calls:
            for _ in range(chance.choice([1, 1, 20])):
                self.withdraw(chance.choice(self.calls))

    def withdraw(self, call: Any) -> None:
        if not call.outcomes:
            call.withdrawn = True
            self.session.calls.cancel(call)

    # ---- masters -----------------------------------------------------------------------------------------------------

    def comes_up(self, chance: Random) -> None:
        """Until it is open, at a master that has no fault."""
        for _ in range(10):
            subject = self.session
            if subject.phase is session.OPEN:
                return
            if subject.link is None:
                self.pass_by(max(0.001, min(90.0, subject.next_deadline() - self.now)))
            else:
                epoch = max(subject._search.epoch, 1)
                self.welcome(messages.Welcome(1, epoch, "m", resumed=chance.random() < 0.8, born=self.born))

    def welcome(self, welcome: messages.Welcome) -> None:
        if self.session.link is not None:
            token = self.chance.getrandbits(64)
            self.session.link.inbox.append(wire.head(wire.WELCOME, token) + messages.encode(welcome))
            self.step()

    def which(self, chance: Random) -> int:
        numbers = [call.number for call in self.calls[-20:] if call.number > 0]
        return chance.choice(numbers) if numbers and chance.random() < 0.85 else chance.choice(NUMBERS)

    def say(self, chance: Random, frames: list[bytes]) -> None:
        link = self.session.link
        if link is None:
            return
        if len(frames) > 1 and chance.random() < 0.7:
            frames = [frame for _, frame in wire.bundles(frames)]
        link.inbox.extend(frames)
        self.step()

    def token(self, chance: Random) -> int:
        return self.session._token if chance.random() < 0.95 else chance.choice([0, 1, (1 << 64) - 1])

    def answer(self, chance: Random) -> bytes:
        upto = chance.choice([*[self.sequence + 1] * 6, self.sequence, self.sequence + 3, *NUMBERS])
        self.sequence = upto if upto == self.sequence + 1 else self.sequence
        code = chance.choice([0, 0, 0, 0, 1, 2, 5, 8, 9, 12, 12, 19, 13, 21, 65_535])
        epoch, elapsed = chance.choice([0, 1, (1 << 32) - 1]), chance.choice([0, (1 << 32) - 1])
        head = wire.head(
            wire.ANSWER, self.token(chance), epoch, elapsed, self.which(chance), upto, chance.choice(NUMBERS), code
        )
        return head + chance.choice(BODIES)

    def chunk(self, chance: Random) -> bytes:
        which = self.which(chance)
        call: Any = self.session.calls.sent(which)
        at = call.into.received if isinstance(call, Streaming) else 0
        if chance.random() < 0.3:
            granted = call.out.written if call is not None and getattr(call, "out", None) is not None else 0
            received = chance.choice([0, 0, 1, 10, granted, granted + 1, *NUMBERS])
            upto = chance.choice([received, 256 * 1024, 256 * 1024 + received, 1 << 20, *NUMBERS])
            return Credit(upto % (1 << 64), received, chance.random() < 0.4).frame(self.token(chance), which)
        offset = chance.choice([at, at, at, at, 0, at + 1, max(0, at - 1), *NUMBERS])
        data = bytes(chance.choice([0, 1, 10, CHUNK_MAX, CHUNK_MAX + 1]))
        attempt = chance.choice([1, 1, 1, 1, 1, 2, 65_535])
        return Chunk(offset, data, chance.random() < 0.8).frame(self.token(chance), which, 1, attempt)

    def other(self, chance: Random) -> bytes:
        token, which = self.token(chance), self.which(chance)
        kind = chance.choice(
            [wire.WHO, wire.BYE, wire.PROBE, wire.CANCEL, wire.ACK, wire.REQUEST, wire.DELIVER, wire.CREDIT, wire.CHUNK]
            + [wire.CONTROL, wire.WELCOME, wire.REFUSED, wire.HELLO, wire.BUNDLE, 200]
        )
        frame = wire.head(kind, token, number=which, upto=chance.choice(NUMBERS), below=chance.choice(NUMBERS))
        return frame + chance.choice([b"", b"", bytes(16), encode_result(["Welcome", {}])])

    def master_answers(self, chance: Random) -> None:
        self.say(chance, [self.answer(chance) for _ in range(chance.choice([1, 1, 5]))])

    def master_streams(self, chance: Random) -> None:
        self.say(chance, [self.chunk(chance) for _ in range(chance.choice([1, 1, 5]))])

    def master_says(self, chance: Random) -> None:
        makers = [self.answer, self.chunk, self.other]
        self.say(chance, [chance.choice(makers)(chance) for _ in range(chance.choice([1, 2, 5]))])

    def master_greets(self, chance: Random) -> None:
        subject = self.session
        if subject.phase is session.OPEN and chance.random() < 0.5:
            return
        if subject.link is None and subject.phase is session.PARTED:
            self.pass_by(max(0.001, min(90.0, subject.next_deadline() - self.now)))
        if chance.random() < 0.3:
            code = chance.choice(["incompatible", "busy", "denied", "standby", "port", "odd"])
            refusal = messages.Refusal(code, "why", number(chance, 0, 100), [1, 1])
            self.say(chance, [messages.framed(wire.REFUSED, 0, refusal)])
            return
        epoch = max(0, self.session._search.epoch + chance.choice([-1, 0, 0, 1]))
        self.born += chance.random() < 0.2
        fields = messages.Welcome(1, epoch, "m", born=self.born, resumed=chance.random() < 0.5)._asdict()
        for name in ("resumed", "frontend_port", "host", "max_message", "born", "state", "other", "upto", "epoch"):
            if chance.random() < 0.15:
                alike = [each for each in (*WORDS, *NUMBERS, -1, True, False) if type(each) is type(fields[name])]
                fields[name] = chance.choice(alike if chance.random() < 0.95 else ODD)
        token = chance.choice([0, chance.getrandbits(64)])
        try:
            body = encode_result(["Welcome", fields])
        except TypeError:
            return
        self.say(chance, [wire.head(wire.WELCOME, token) + body])

    def another_is_active(self, chance: Random) -> None:
        """To whom asks beside, while nothing comes over the connection."""
        self.pass_by(chance.choice([0.3, 0.6, 1.5]))
        for link in FakeLink.made:
            if not link.closed and link is not self.session.link and link.sent:
                epoch = max(0, self.session._search.epoch + chance.choice([-1, 0, 1, 1]))
                welcome = messages.Welcome(1, epoch, "m", state=chance.choice(["active", "active", "standby"]))
                frames = [messages.framed(wire.WELCOME, 5, welcome), wire.head(wire.WHO, 0), b"odd"]
                link.inbox.append(chance.choice(frames))
        self.pass_by(0.2)

    def connection_breaks(self, chance: Random) -> None:
        for link in FakeLink.made:
            link.gone = link.gone or chance.random() < 0.7
        self.step()

    def connection_is_full(self, chance: Random) -> None:
        for link in FakeLink.made:
            link.full = chance.random() < 0.4
        self.step()

    def time_passes(self, chance: Random) -> None:
        self.pass_by(chance.choice([0.001, 0.1, 0.5, 1.0, 4.0, 31.0, 61.0, 400.0]))

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        self.step()
        calls = self.session.calls
        waiting = [call for call in calls._waiting if call.number == 0]
        if calls._waiting_bytes != sum(len(call.body) for call in waiting) or calls._waiting_bytes > WAITING_BYTES:
            raise Violation(f"{calls._waiting_bytes} bytes are said to wait")
        held = sum(len(call.body) for call in calls._sent.values()) - sum(len(call.body) for call in calls._begun)
        if calls._sent_bytes != held or calls.window != WINDOW + len(calls._begun):
            raise Violation(f"{calls._sent_bytes} bytes are said to be sent, not {held}; window {calls.window}")
        live = {id(call) for call in (*waiting, *calls._sent.values())}
        for call in self.calls:
            if (id(call) in live) is bool(call.outcomes or call.withdrawn):
                raise Violation(f"call {call.number}: {call.outcomes} outcomes, waited for: {id(call) in live}")
        if len(live) != len(waiting) + len(calls._sent):
            raise Violation("a call stands twice")

    def end(self) -> None:
        """Without a master each call comes to an end of its own; nothing is left over."""
        for link in FakeLink.made:
            link.gone, link.full = True, False
        self.now += CALM_S
        self.step()
        for _ in range(8):
            if not len(self.session.calls):
                break
            self.pass_by(45.0)
            for link in FakeLink.made:
                link.gone = True
        if len(self.session.calls):
            raise Violation(f"{len(self.session.calls)} calls never end")
        self.session.close(Cancelled("closed"))
        if any(call.outcomes + call.withdrawn != 1 for call in self.calls):
            raise Violation("a call without an outcome")
        if any(not link.closed for link in FakeLink.made):
            raise Violation("a connection is left open")


class OneMasterWorld(ClientWorld):
    masters: ClassVar[tuple[str, ...]] = MASTERS[:1]
