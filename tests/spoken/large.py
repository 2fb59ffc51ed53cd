"""Two masters that are told the same: one takes large frames as the transport has them, and puts its own heads there in
place of theirs; the other copies. What they say is the same, byte for byte, and stays so once it was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, ClassVar

import msgpack
from core_rig import Answer, as_large

from rota.common import wire
from rota.common.limits import HEAD_MAX
from rota.common.wire import KEYED, META, MORE, OLDER, ORIGIN, ORIGIN_STRUCT, RESENT
from rota.master.core.master import Master

from .history import Violation
from .master import MasterWorld

FULL = wire.BUNDLE_BYTES_MAX
SIZES = (0, 100, 5000, FULL, FULL + 1, 2 * FULL)  # of bodies
KEPT = 5 * FULL  # bytes of answers: some are dropped, some are not
LABEL = ORIGIN_STRUCT.size

Receive = Callable[[bytes, bytes, float], None]


class CopyingWorld(MasterWorld):
    """Whoever's body it is stands at its beginning."""

    targets = ("orders.quote", "orders.again", "orders.again", "orders.keyed", "site.again")
    flags = (0, 0, 0, RESENT, RESENT, RESENT, RESENT | OLDER, MORE, MORE)

    def __init__(self) -> None:
        self.chance = Random(7)
        self.bodies: dict[tuple[bytes, int], set[bytes]] = {}  # session, request number → beginnings of its bodies
        self.whose: dict[int, bytes] = {}  # token → session
        super().__init__(answers_bytes=KEPT)  # what is queued is no measure: of the same request one has an origin

    def made(self, *given: Any) -> Master:
        core: Any = super().made(*given)
        core.frontend, core.backend = self.door(core, "frontend"), self.door(core, "backend")
        return core

    def door(self, core: Any, name: str) -> Receive:
        receive = getattr(core, name)
        receive_large = getattr(core, f"{name}_large")

        def enlarged(route: bytes, frame: bytes, now: float) -> None:
            fields = wire.parse(frame)
            frames = wire.split(frame, fields) if fields[3] == wire.BUNDLE else [frame]
            for _, each in wire.bundles([self.enlarged(core, route, each) for each in frames]):
                self.receive(receive, receive_large, route, each, now)
            self.whose.update({session.token: session.id for session in core.dispatch.routes.values()})

        return enlarged

    def enlarged(self, core: Any, route: bytes, frame: bytes) -> bytes:
        fields = wire.parse(frame)
        kind, head_len = fields[3], fields[11]
        if kind == wire.REQUEST:
            return self.request(core, route, frame)
        if kind in (wire.REPLY, wire.CHUNK):
            label, head = self.label(core, route, fields, frame), frame[:head_len]
            if kind == wire.REPLY and head_len == wire.HEADER_SIZE and self.chance.random() < 0.15:
                known = wire.Head(*fields)
                head = _with(known._replace(flags=known.flags | ORIGIN), label)  # longer than that of its answer
            return head + self.sized(len(head), label)
        if kind == wire.CREDIT and self.chance.random() < 0.5:
            return frame[:head_len] + (8 * FULL).to_bytes(8, "little") + bytes(8)
        return frame

    def receive(self, receive: Receive, receive_large: Any, route: bytes, frame: bytes, now: float) -> None:
        """What is said with an origin that is right, as if it were said without."""
        fields = wire.parse(frame)
        if len(frame) > FULL and fields[3] == wire.REQUEST and fields[4] & ORIGIN:
            session = self.dispatch.routes.get(route)
            if session is not None and frame[wire.HEADER_SIZE : wire.WITH_ORIGIN] == _origin(session.id, fields[8]):
                head = wire.Head(*fields)
                tail = frame[wire.WITH_ORIGIN : head.head_len]
                frame = _with(head._replace(flags=head.flags ^ ORIGIN), tail) + frame[head.head_len :]
        receive(route, frame, now)

    def request(self, core: Any, route: bytes, frame: bytes) -> bytes:
        """With a body of its own, and as clients say where they are large."""
        chance, head = self.chance, wire.parse_head(frame)
        session = core.dispatch.routes.get(route)
        if session is None or session.token != head.token:
            return frame
        tail, label = frame[wire.HEADER_SIZE : head.head_len], _origin(session.id, head.number)
        if chance.random() < 0.05:
            room = HEAD_MAX - chance.choice([0, 0, 1, 23, 24, 25]) - wire.WITH_ORIGIN - head.code
            tail = tail[: head.code] + msgpack.packb({"h": {"a": "b" * (room - 9)}})
            head = head._replace(flags=head.flags & ~(KEYED | wire.PINNED) | META)
        if head.flags & KEYED:
            label = b"of a key"
        elif frame[head.head_len :] == b"poison":
            label = b"poison"
        self.bodies.setdefault((session.id, head.number), set()).add(label.ljust(LABEL, b"-"))
        body = label.ljust(2 * FULL, b"-") if label == b"poison" else self.sized(head.head_len, label)
        if len(body) > FULL or chance.random() < 0.05:
            head = head._replace(flags=head.flags | ORIGIN)
            tail = _origin(session.id, chance.choice([head.number] * 9 + [1])) + tail
        return _with(head, tail) + body

    def label(self, core: Any, route: bytes, fields: tuple[int, ...], frame: bytes) -> bytes:
        """As that of the request which it answers."""
        slot = core.dispatch.slot_routes.get(route)
        request = slot.inflight.get(fields[8]) if slot is not None else None
        if request is not None and request.epoch == fields[6]:
            return request.frame[request.head_len :][:LABEL] if request.frame else _origin(*request.origin())
        return frame[wire.HEADER_SIZE : fields[11]]

    def sized(self, head_len: int, label: bytes) -> bytes:
        """Also so that its frame is just large, or just not."""
        size = self.chance.choice([*SIZES, FULL - head_len, FULL - head_len + 1])
        return label.ljust(LABEL, b"-").ljust(size, b".")


class PatchingWorld(CopyingWorld):
    def receive(self, receive: Receive, receive_large: Any, route: bytes, frame: bytes, now: float) -> None:
        """As the shell does."""
        if len(frame) > FULL:
            receive_large(route, as_large(frame), now)
        else:
            receive(route, frame, now)


class LargeWorld:
    actions: ClassVar[Mapping[str, int]] = {
        **MasterWorld.actions,
        "everybody_comes": 10,
        "agents_serve": 20,
        "processes_answer": 14,
        "client_asks": 30,
        "client_greets": 4,
        "process_dies": 10,
        "sends_fail": 8,
        "settings_change": 1,
        "operator_asks": 4,
    }
    ended = False

    def __init__(self) -> None:
        self.patching, self.copying = PatchingWorld(), CopyingWorld()
        self.said: list[tuple[Any, bytes]] = []
        self.heard = 0, 0

    def __getattr__(self, action: str) -> Callable[[Random], None]:
        if action not in self.actions:
            raise AttributeError(action)

        def both(chance: Random) -> None:
            seed = chance.getrandbits(32)
            for world in (self.patching, self.copying):
                getattr(world, action)(Random(seed))

        return both

    def check(self) -> None:
        self.patching.check()
        self.copying.check()
        self._compare()

    def end(self) -> None:
        self.patching.end()
        self.copying.end()
        self._compare()

    def _compare(self) -> None:
        mine, others = self._new(self.patching), self._new(self.copying)
        if len(mine) != len(others):
            raise Violation(f"{len(mine)} frames, not {len(others)}")
        for (to, frame), (other_to, other) in zip(mine, others, strict=True):
            if to != other_to or bytes(frame) != other:
                raise Violation(f"to {to} {_shown(frame)}, not to {other_to} {_shown(other)}")
        self.said += [(frame, other) for (_, frame), (_, other) in zip(mine, others, strict=True)]
        if any(frame[:HEAD_MAX] != other[:HEAD_MAX] for frame, other in self.said):
            raise Violation("what is under way was touched")
        if self.patching.dispatch.counters != self.copying.dispatch.counters:
            raise Violation(f"{self.patching.dispatch.counters}, not {self.copying.dispatch.counters}")
        self.heard = len(self.patching.deliveries), len(self.patching.answers)

    def _new(self, world: CopyingWorld) -> list[tuple[str, Any]]:
        deliveries, answers = world.deliveries[self.heard[0] :], world.answers[self.heard[1] :]
        for _, _, frame in deliveries:
            _check_delivery(world, frame)
        for answer in answers:
            _check_answer(world, answer)
        to = [(slot.incarnation, frame) for slot, _, frame in deliveries]
        return to + [(f"session {world.whose.get(answer.token)!r}", answer.frame) for answer in answers]


def _check_delivery(world: CopyingWorld, frame: wire.Frame) -> None:
    head = wire.parse_head(frame)
    if head.kind != wire.DELIVER:
        return
    session, number = ORIGIN_STRUCT.unpack(frame[wire.HEADER_SIZE : wire.WITH_ORIGIN])
    label = frame[head.head_len : head.head_len + LABEL]
    if any(session) and label not in world.bodies.get((session, number), ()):
        raise Violation(f"a delivery of {session!r} {number} has the body of {label!r}")


def _check_answer(world: CopyingWorld, answer: Answer) -> None:
    if answer.kind != wire.ANSWER or answer.code or not answer.body:
        return
    asked = world.bodies.get((world.whose[answer.token], answer.number), set())
    if b"of a key".ljust(LABEL, b"-") not in asked and answer.body[:LABEL] not in asked:
        raise Violation(f"an answer to {answer.number} has the body of {answer.body[:LABEL]!r}, not of {asked}")


def _origin(session: bytes, number: int) -> bytes:
    return ORIGIN_STRUCT.pack(session, number)


def _with(head: wire.Head, tail: bytes) -> bytes:
    known = (head.kind, head.token, head.epoch, head.time, head.number, head.upto, head.below, head.code, head.flags)
    return wire.head(*known, tail)


def _shown(frame: wire.Frame) -> str:
    return f"{wire.parse_head(frame)._replace(crc=0)} of {len(frame)} bytes"
