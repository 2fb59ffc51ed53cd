"""A process of one thread whose masters give it anything, in any order, while its agent recalls and fences."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

from rota.common import fields, messages, wire
from rota.common.errors import OK
from rota.common.streams import CHUNK_MAX, Chunk, Credit
from rota.worker import async_serving
from rota.worker import backend as backend_module
from rota.worker import process as process_module
from rota.worker import streams as streams_module
from rota.worker.backend import Backend, Rejected
from rota.worker.core.deliveries import Deliveries, Delivery
from rota.worker.core.holding import Holding
from rota.worker.core.streams import Abandoned, Streams
from rota.worker.hosting import Outcome
from rota.worker.page import FENCE_EPOCH, FLOOR, OBEY, STARTED_UPTO, Page
from rota.worker.streams import Pump, SyncStream

from .chance import number
from .history import Violation
from .links import FakeLink, pretended

MASTERS = ("tcp://one:7702", "tcp://two:7702")
NUMBERS = (0, 1, 2, 3, 100, (1 << 31) - 2, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
ROWS = 8
LIMIT_NS = 2_000_000_000
TICK_S = 0.01  # between two looks at the clock
LOOKS_MAX = 200  # of the loop, until it rests
STREAK = 2  # quick replies in a row, before one waits for the next


class ProcessWorld:
    actions: ClassVar[Mapping[str, int]] = {
        "comes_up": 10,
        "master_gives": 20,
        "master_streams": 8,
        "master_says": 8,
        "master_greets": 4,
        "agent_fences": 3,
        "agent_turns_it": 2,
        "connection_breaks": 3,
        "connection_is_full": 1,
        "time_passes": 4,
    }

    def __init__(self) -> None:
        self._stack = pretended(backend_module, process_module, streams_module, async_serving)
        self.now = 1000.0
        for module in (backend_module, streams_module):
            self._stack.enter_context(patch.object(module, "monotonic", self.clock))
        self._stack.enter_context(patch.object(backend_module, "sleep", self.sleep))
        self._stack.enter_context(patch.object(backend_module, "print", lambda *_, **__: None, create=True))
        FakeLink.idle = self.said_meanwhile
        self.chance = Random(7)
        self.page = Page.create(ROWS)
        self._stack.callback(self.page.close)
        self.ledger = Deliveries(self.page, {"quote": LIMIT_NS}, LIMIT_NS, remember=16)
        self.streams = Streams(self.ledger)
        self.backend = Backend(MASTERS, self.page, self.ledger, self.streams, self.hello, batch=False)
        self.process: Any = SimpleNamespace(
            backend=self.backend,
            deliveries=self.ledger,
            holding=Holding(STREAK),
            page=self.page,
            attend=self.backend.attend,
        )
        self.pump = Pump(self.process)
        self.ran: list[int] = []
        self.acknowledged = 0  # the highest that any master could have meant
        self.ended = False
        self._spy()

    def restore(self) -> None:
        self._stack.close()

    def _spy(self) -> None:
        """What masters acknowledge of what there is."""
        ledger, take, start, welcomed = self.ledger, self.ledger.take, self.ledger.start, self.ledger.welcomed

        def taken(fields: tuple[int, ...], frame: bytes, now_ns: int) -> Delivery | None:
            found = take(fields, frame, now_ns)
            if found is not None:
                self.acknowledged = max(self.acknowledged, min(fields[9], ledger.sequence))
            return found

        def started(delivery: Delivery, now_ns: int) -> bool:
            words = self.page.words
            may_run = start(delivery, now_ns)
            if may_run and (delivery.epoch < words[FENCE_EPOCH] or delivery.number < words[FLOOR]):
                raise Violation("what was taken back or is fenced off runs")
            if may_run and delivery.number > words[STARTED_UPTO]:
                raise Violation("something runs that its page does not name")
            return may_run

        def greeted(token: int, epoch: int, upto: int) -> list[bytes]:
            self.acknowledged = max(self.acknowledged, min(upto, ledger.sequence))
            return welcomed(token, epoch, upto)

        ledger.take, ledger.start, ledger.welcomed = taken, started, greeted  # type: ignore[method-assign]

    def clock(self) -> float:
        self.now += TICK_S
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def hello(self) -> messages.ProcessHello:
        ledger = self.ledger
        done, done_ms = ledger.done(int(self.now * 1e9))
        hello = messages.ProcessHello(
            [1, 1],
            "n1.b1.1",
            b"ticket",
            "orders",
            "1",
            "digest",
            {},
            1,
            7,
            ledger.received_upto,
            ledger.started_upto,
            ledger.sequence,
            ledger.held(),
            ledger.next_hello(),
            done,
            done_ms,
        )
        if messages.decode(messages.encode(hello)) != hello:
            raise Violation("its HELLO is not read as it was said")
        return hello

    # ---- serving -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        try:
            for _ in range(LOOKS_MAX):
                self.backend.attend()
                if self.backend.greeted:
                    process_module._serve_session(self.process, self.run)
                elif frame := self.backend.wait():
                    self.backend.handle(frame)
                link = self.backend.link
                waits = self.backend.inbox or self.backend.replies
                if not (self.backend.greeted and waits) and (link is None or not link.readable()):
                    return
        except Rejected:
            self.ended = True
            return
        raise Violation("it does not come to rest")

    def run(self, delivery: Delivery) -> Outcome:
        if delivery.number in self.ran:
            raise Violation("a delivery runs twice")
        self.ran.append(delivery.number)
        str((delivery.attempt, delivery.deadline, delivery.request_id, delivery.session, delivery.headers))
        chance = self.chance
        if delivery.streams and chance.random() < 0.8:
            stream = SyncStream(self.pump, self.backend, self.streams, delivery)
            try:
                for _ in range(chance.choice([1, 3])):
                    if chance.random() < 0.5:
                        stream.read()
                    else:
                        stream.write(bytes(chance.choice([0, 1, CHUNK_MAX, 6 * CHUNK_MAX])))
                if chance.random() < 0.6:
                    stream.finish()
            except Abandoned:
                pass
        body = bytes(chance.choice([0, 10, 5000]))
        return Outcome(OK, body, self.streams.settled(delivery.number, chance.choice([0, 5, 1 << 40])))

    def said_meanwhile(self, link: FakeLink) -> None:
        """While a handler waits for its stream."""
        if self.ledger.running and link is self.backend.link and self.chance.random() < 0.3:
            link.inbox += [self.of_stream(self.chance) for _ in range(self.chance.choice([1, 1, 3]))]
            if self.chance.random() < 0.1:
                link.inbox.append(self.other(self.chance))
            if self.chance.random() < 0.1:
                link.inbox.append(self.delivery(self.chance))

    # ---- masters -----------------------------------------------------------------------------------------------------

    def comes_up(self, chance: Random) -> None:
        """Until a master that has no fault has welcomed it."""
        for _ in range(150):  # a refusal may ask for a minute
            link: Any = self.backend.link
            if link is not None:
                link.full = False
            if self.ended or self.backend.greeted:
                return
            if link is not None and any(wire.parse(frame)[3] == wire.HELLO for frame in link.sent):
                upto = chance.choice([0, self.ledger.sequence, max(0, self.ledger.sequence - 2)])
                self.welcome(chance, messages.Welcome(1, max(1, self.page.words[FENCE_EPOCH]), "m", upto=upto))
            else:
                self.now += 0.5
                self.step()
        raise Violation("it does not say HELLO")

    def welcome(self, chance: Random, welcome: messages.Welcome) -> None:
        token = chance.choice([0, *[chance.getrandbits(64)] * 5])
        self.say([wire.head(wire.WELCOME, token) + messages.encode(welcome)])

    def say(self, frames: list[bytes]) -> None:
        link: Any = self.backend.link
        if link is not None:
            link.inbox.extend(frames)
            self.step()

    def said(self, chance: Random, frames: list[bytes]) -> None:
        self.say([frame for _, frame in wire.bundles(frames)] if chance.random() < 0.5 else frames)

    def token(self, chance: Random) -> int:
        return self.ledger.token if chance.random() < 0.95 else chance.choice([0, 1, (1 << 64) - 1])

    def which(self, chance: Random) -> int:
        upto = self.ledger.received_upto
        usual = [*self.ledger.running, *self.ledger.running, upto + 1, upto + 1, upto, max(0, upto - 1)]
        return min((1 << 64) - 1, chance.choice(usual if chance.random() < 0.9 else NUMBERS))

    def delivery(self, chance: Random, ahead: int = 0) -> bytes:
        usual = self.ledger.received_upto + 1 + ahead
        which = chance.choice([usual] * 8 + [usual - 1, usual + 2, chance.choice(NUMBERS)]) % (1 << 64)
        epoch = chance.choice([*[max(1, self.ledger.epoch)] * 8, 0, self.ledger.epoch + 1, chance.choice(NUMBERS)])
        sequence = self.ledger.sequence
        upto = chance.choice([sequence, sequence, max(0, sequence - 3), 0, sequence + 5, chance.choice(NUMBERS)])
        target = chance.choice([b"orders.quote", b"orders.other", b"orders.", b"", b"\xff."])
        request = chance.choice([which, *NUMBERS])
        tail = wire.ORIGIN_STRUCT.pack(b"s" * 16, request) + target + chance.choice([b"", b"", b"\xc1", b"\x80"])
        flags = wire.ORIGIN | chance.choice([0, wire.MORE, wire.MORE, wire.META, 255])
        if chance.random() < 0.05:
            flags, tail = 0, chance.choice([b"", tail])
        length = chance.choice([*[len(target)] * 9, 65_535])
        token, attempt = self.token(chance), chance.choice([1, 2, *NUMBERS]) % (1 << 16)
        time_ms = chance.choice([0, 1000, (1 << 32) - 1])
        head = wire.head(
            wire.DELIVER, token, epoch % (1 << 32), time_ms, which, upto, attempt, length, flags & 255, tail
        )
        return head + bytes(chance.choice([0, 10, 9000]))

    def of_stream(self, chance: Random) -> bytes:
        which, token = self.which(chance), self.token(chance)
        stream = self.streams.opened.get(which)
        if chance.random() < 0.1:
            return wire.head(wire.CANCEL, token, number=which)
        if chance.random() < 0.5:
            received = chance.choice(
                [stream.out.received, stream.out.written, stream.out.written + 1] if stream else [0]
            )
            received = chance.choice([received, received, received, *NUMBERS])
            upto = chance.choice([received + (256 << 10), received + (1 << 20), received, *NUMBERS]) % (1 << 64)
            return Credit(upto, received, chance.random() < 0.3).frame(token, which)
        at = stream._into.received if stream else 0
        offset = chance.choice([at, at, at, 0, at + 1, *NUMBERS])
        return Chunk(offset, bytes(chance.choice([0, 1, CHUNK_MAX])), chance.random() < 0.7).frame(token, which)

    def other(self, chance: Random) -> bytes:
        if chance.random() < 0.3:
            code = chance.choice(["unknown", "standby", "standby", "busy", "odd", "port"])
            return messages.framed(wire.REFUSED, 0, messages.Refusal(code, "why", number(chance, 0, 10), [1, 1]))
        if chance.random() < 0.3:
            upto = chance.choice([0, self.ledger.sequence, self.ledger.sequence + 9, (1 << 63) - 2])
            epoch = max(0, self.ledger.epoch + chance.choice([-1, 0, 1]))
            size = chance.choice([0, 1, 1 << 20, (1 << 48) - 1])
            return wire.head(wire.WELCOME, chance.getrandbits(64)) + messages.encode(
                messages.Welcome(1, epoch, "m", upto=upto, max_message=size)
            )
        kind = chance.choice([wire.WHO, wire.WHO, wire.BYE, wire.PROBE, wire.ANSWER, wire.HELLO, wire.BUNDLE, 200])
        return wire.head(kind, self.token(chance), number=chance.choice(NUMBERS)) + chance.choice([b"", bytes(16)])

    def master_gives(self, chance: Random) -> None:
        self.said(chance, [self.delivery(chance, ahead) for ahead in range(chance.choice([1, 1, 3, 12]))])

    def master_streams(self, chance: Random) -> None:
        self.said(chance, [self.of_stream(chance) for _ in range(chance.choice([1, 4]))])

    def master_says(self, chance: Random) -> None:
        makers = [self.delivery, self.of_stream, self.other]
        frames = [chance.choice(makers)(chance) for _ in range(chance.choice([1, 3]))]
        self.said(chance, frames + [b"odd"] * (chance.random() < 0.05))

    def master_greets(self, chance: Random) -> None:
        if chance.random() < 0.05:
            self.say([messages.framed(wire.REFUSED, 0, messages.Refusal("interface", "why", 0, [1, 1]))])
        else:
            self.say([self.other(chance)])

    # ---- its agent, and time -----------------------------------------------------------------------------------------

    def agent_fences(self, chance: Random) -> None:
        words = self.page.words
        if chance.random() < 0.5:
            words[FLOOR] = max(words[FLOOR], min((1 << 63) - 1, self.ledger.started_upto + chance.choice([1, 3])))
        else:
            words[FENCE_EPOCH] += chance.choice([0, 1])

    def agent_turns_it(self, chance: Random) -> None:
        self.page.words[OBEY] = chance.choice([0, 1, 7702 << 16, 1 | 7702 << 16, 65_535 << 16 | 65_535])
        self.step()

    def connection_breaks(self, chance: Random) -> None:
        for link in FakeLink.made:
            link.gone = True
        self.step()

    def connection_is_full(self, chance: Random) -> None:
        for link in FakeLink.made:
            link.full = chance.random() < 0.5

    def time_passes(self, chance: Random) -> None:
        self.now += chance.choice([0.1, 1.0, 5.0, 70.0])
        self.step()

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        ledger = self.ledger
        kept = [(wire.parse_head(frame), row) for frame, _, row in ledger._kept]
        if [head.upto for head, _ in kept] != list(range(ledger._settled + 1, ledger.sequence + 1)):
            raise Violation("the replies that are kept are not all that follow the last acknowledged one")
        if ledger._settled > self.acknowledged:
            raise Violation("a reply is let go that was not acknowledged since it was made")
        rows = ledger._free + [row for _, row in kept if row >= 0]
        rows += [each.row for each in ledger.running.values() if each.row >= 0]
        if sorted(rows) != list(range(ROWS)):
            raise Violation(f"rows {sorted(rows)} of {ROWS}")
        self.check_running()
        self.hello()
        for row in self.page.report():
            fields.checked(messages.Row, fields.plain(row))

    def check_running(self) -> None:
        if self.ledger.running or self.streams.opened:
            raise Violation("something runs behind the last handler")
        if self.backend.replies:
            raise Violation("replies wait for nothing")
        link: Any = self.backend.link
        if self.backend.greeted and not (link.gone or link.full):
            self.check_replies(link)

    def check_replies(self, link: FakeLink) -> list[wire.Head]:
        heads = said(link)
        sequences = [head.upto for head in heads if head.kind == wire.REPLY]
        kept = range(self.ledger._settled + 1, self.ledger.sequence + 1)
        if sequences != list(range(self.ledger.sequence + 1 - len(sequences), self.ledger.sequence + 1)):
            raise Violation(f"replies are sent in another order: {sequences}")
        if len(sequences) < len(kept):
            raise Violation(f"of the replies {list(kept)} only {sequences} are sent")
        return heads

    def end(self) -> None:
        """A master that has no fault hears of all that is kept, in its order."""
        for link in FakeLink.made:
            link.gone = True
        if self.ended:
            return
        self.now += 100.0
        self.step()
        self.comes_up(Random(1))
        link: Any = self.backend.link
        if not self.ended:
            self.check_replies(link)


def said(link: FakeLink) -> list[wire.Head]:
    """What it sent since its last HELLO."""
    heads: list[wire.Head] = []
    for frame in link.sent:
        fields = wire.parse(frame)
        for each in wire.split(frame, fields) if fields[3] == wire.BUNDLE else [frame]:
            heads.append(wire.parse_head(each))
    hellos = [place for place, head in enumerate(heads) if head.kind == wire.HELLO]
    return heads[hellos[-1] :] if hellos else heads
