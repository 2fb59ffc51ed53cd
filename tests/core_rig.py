"""A master's core with agents, processes and clients that say exactly what a test tells them to; time is a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import msgpack

from rota.common import messages, wire
from rota.common.errors import OK
from rota.common.messages import AgentHello, Exited, Handler, Held, ProcessHello, Row
from rota.common.settings import MasterSettings, ServiceSettings
from rota.master.core.beginning import Heritage, Identity, Past, Sections, Sources
from rota.master.core.engine_lease import EngineLease
from rota.master.core.master import Master
from rota.master.core.pool import Slot
from rota.master.core.records import Restored
from rota.master.core.registry import Node

Kind = TypeVar("Kind")
HANDLERS = {"quote": Handler("no"), "again": Handler("yes"), "keyed": Handler("key"), "http": Handler("no")}
SESSION = b"s" * 16


class Answer:
    def __init__(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        self.number, self.code, self.sequence, self.token = head.number, head.code, head.upto, head.token
        self.body = frame[head.head_len :]
        self.kind, self.frame = head.kind, frame

    @property
    def cause(self) -> str:
        return str(msgpack.unpackb(self.body)["cause"])


class Rig:
    def __init__(
        self,
        service: Mapping[str, Any] | None = None,
        restored: Restored | None = None,
        epoch: int = 1,
        heritage: Heritage | None = None,
        **settings: Any,
    ) -> None:
        self.now = 100.0
        self.services: dict[str, ServiceSettings] = {}
        self.default = replace(ServiceSettings(), **{"ramp": 0.0, "credit": 1, **(service or {})})
        self.tokens = 0
        self.wall = 1_000_000.0
        self.sections = Sections(
            replace(MasterSettings(), **{"state": "/nowhere", **settings}),
            lambda name: self.services.get(name, self.default),
        )
        self.core = self.made(restored or Restored(), epoch, heritage or Heritage())
        self.dispatch, self.fleet, self.out = self.core.dispatch, self.core.fleet, self.core.out
        self.records: list[bytes] = []
        self.said: dict[bytes, list[Any]] = {}  # messages on the control socket, by route
        self.answers: list[Answer] = []
        self.deliveries: list[tuple[Slot, int, bytes]] = []
        self.durable = True

    def made(self, restored: Restored, epoch: int, heritage: Heritage, lease: EngineLease | None = None) -> Master:
        sources = Sources(self._token, lambda: self.wall)
        past = Past(restored, epoch=epoch)
        return Master(Identity("m", 1, 2), self.sections, past, sources, heritage, lease, self.now)

    def _token(self) -> int:
        self.tokens += 1
        return self.tokens

    # ---- time --------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Takes out what the core wants done; records are durable at once, unless a test wants to see them wait."""
        out = self.out
        while out.records and self.durable:
            records, out.records = out.records, []
            self.records += [data for _, data in records]
            self.core.recorded(records[-1][0], self.now)
        for route, frame in out.control:
            head = wire.parse_head(frame)
            body = frame[head.head_len :]
            self.said.setdefault(route, []).append(messages.decode(body) if body else head.kind)
        for session in out.sessions:
            self.answers += map(Answer, session.outgoing)
            session.outgoing = []
        for slot in out.slots:
            self.deliveries += [(slot, wire.parse_head(frame).number, frame) for frame in slot.outgoing]
            slot.outgoing = []
        for each in (out.control, out.sessions, out.slots):
            each.clear()

    def after(self, seconds: float, beat: bool = True) -> None:
        """Time passes in ticks; agents beat unless a test silences them."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.02)
            if beat:
                for node in self.fleet.nodes.values():
                    if node.route:
                        node.heard_at = self.now
            self.core.tick(self.now)
            self.flush()

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def agent(self, name: str = "n1", boot: str = "b1", capacity: int = 2, **more: Any) -> Node:
        fields: dict[str, Any] = {
            "versions": [1, 1],
            "node": name,
            "boot": boot,
            "epoch": 0,
            "capacity": capacity,
            "offers": ["orders"],
            "tags": {},
            "processes": [],
            "exits": [],
            "intent": "active",
            "generation": 0,
        }
        hello = AgentHello(**{**fields, **more})
        self.core.control(name.encode(), messages.framed(wire.HELLO, 0, hello), self.now)
        self.core.tick(self.now)
        self.flush()
        return self.fleet.nodes[name]

    def tell(self, node: Node, message: Any) -> None:
        """From the agent of this node."""
        self.core.control(node.route, messages.framed(wire.CONTROL, node.token, message), self.now)
        self.flush()

    def heard(self, name: str, kind: type[Kind]) -> list[Kind]:
        """What the agent was told, of this kind."""
        return [each for each in self.said.get(name.encode(), []) if isinstance(each, kind)]

    def started(self, node: Node, number: int = 1, service: str = "orders") -> str:
        incarnation = f"{node.name}.{node.boot}.{number}"
        self.tell(node, messages.Started(incarnation, service, b"t", number))
        return incarnation

    def process(self, node: Node, number: int = 1, **more: Any) -> Slot:
        """Started and ready."""
        incarnation = self.started(node, number, more.get("service", "orders"))
        self.process_hello(incarnation, **more)
        return self.fleet.processes.slots[incarnation]

    def process_hello(self, incarnation: str, route: bytes = b"", **more: Any) -> None:
        fields: dict[str, Any] = {
            "versions": [1, 1],
            "incarnation": incarnation,
            "ticket": b"t",
            "service": "orders",
            "version": "1",
            "digest": "d",
            "handlers": HANDLERS,
            "concurrency": 1,
            "pid": 1,
            "received_upto": 0,
            "started_upto": 0,
            "reply_sequence": 0,
            "held": [],
        }
        hello = ProcessHello(**{**fields, **more})
        frame = messages.framed(wire.HELLO, 0, hello)
        self.core.backend(route or incarnation.encode(), frame, self.now)
        self.flush()

    def pool_of(self, slots: int = 2, credit: int = 1) -> list[Slot]:
        """One node with so many ready processes."""
        self.default = replace(self.default, credit=credit)
        node = self.agent(capacity=slots)
        return [self.process(node, number + 1) for number in range(slots)]

    def reply(
        self, slot: Slot, number: int, code: int = OK, body: bytes = b"ok", sequence: int = 0, **more: Any
    ) -> None:
        fields = {"epoch": self.dispatch.epoch, "time": 1000, "upto": sequence or slot.acked + 1, **more}
        frame = wire.head(wire.REPLY, slot.token, number=number, code=code, **fields) + body
        self.core.backend(slot.route, frame, self.now)
        self.flush()

    def exited(self, slot: Slot, started_upto: int = 0, rows: list[tuple[int, int]] | None = None, **more: Any) -> None:
        """Its agent's report; rows are (number, state). What it had sent was read."""
        made = [Row(number, state, SESSION, number, self.dispatch.epoch) for number, state in rows or []]
        report = Exited(slot.incarnation, "orders", -9, "was killed by signal 9", started_upto, made, "")
        report = report._replace(**more)
        self.tell(slot.node, report)
        self.out.probes.clear()
        self.fleet.processes.settle(slot, self.now)
        self.flush()

    # ---- clients -----------------------------------------------------------------------------------------------------

    def client(self, session: bytes = SESSION, route: bytes = b"c", epoch: int = 0) -> int:
        """HELLO; answers the token."""
        hello = messages.ClientHello([1, 1], session, epoch)
        self.core.frontend(route, messages.framed(wire.HELLO, 0, hello), self.now)
        self.flush()
        return self.dispatch.sessions[session].token

    def request(
        self,
        number: int,
        target: str = "orders.quote",
        route: bytes = b"c",
        timeout_ms: int = 30_000,
        flags: int = 0,
        epoch: int | None = None,
        meta: bytes = b"",
        key: str = "",
        body: bytes = b"body",
        upto: int = 0,
    ) -> None:
        if route not in self.dispatch.routes:
            self.client(route=route)
        session = self.dispatch.routes[route]
        meta = meta or (msgpack.packb({"k": key}) if key else b"")
        tail = target.encode() + meta
        flags |= (wire.META if meta else 0) | (wire.KEYED if key else 0)
        epoch = self.dispatch.epoch if epoch is None else epoch
        large = len(body) > wire.BUNDLE_BYTES_MAX
        if large:
            flags, tail = flags | wire.ORIGIN, wire.ORIGIN_STRUCT.pack(session.id, number) + tail
        head = wire.head(wire.REQUEST, session.token, epoch, timeout_ms, number, upto, 1, len(target), flags, tail)
        if large:
            self.core.frontend_large(route, as_large(head + body), self.now)
        else:
            self.core.frontend(route, head + body, self.now)
        self.flush()

    def say(self, kind: int, number: int = 0, upto: int = 0, route: bytes = b"c") -> None:
        token = self.dispatch.routes[route].token
        self.core.frontend(route, wire.head(kind, token, number=number, upto=upto), self.now)
        self.flush()

    def codes(self) -> dict[int, int]:
        """Request number → code of its answer."""
        return {answer.number: answer.code for answer in self.answers if answer.kind == wire.ANSWER}

    def where(self) -> list[tuple[str, int]]:
        """Deliveries so far: whose, which."""
        return [(slot.incarnation, number) for slot, number, _ in self.deliveries]

    # ---- operators ---------------------------------------------------------------------------------------------------

    def verb(self, verb: str, **args: Any) -> messages.Result | None:
        """The answer, None if it is still to come."""
        route = b"op"
        if not self.core.operators.token(route):
            hello = messages.OperatorHello([1, 1], "ann")
            self.core.control(route, messages.framed(wire.HELLO, 0, hello), self.now)
        token = self.core.operators.token(route)
        frame = messages.framed(wire.CONTROL, token, messages.Verb(7, verb, args))
        self.core.control(route, frame, self.now)
        self.core.tick(self.now)
        self.flush()
        return self.result()

    def result(self) -> messages.Result | None:
        found = [each for each in self.said.pop(b"op", []) if isinstance(each, messages.Result)]
        return found[-1] if found else None


def held(number: int, request: int, done: bool = False, epoch: int = 1) -> Held:
    return Held(epoch, number, SESSION, request, done)


def as_large(frame: bytes) -> wire.Large:
    """As the shell hands over what has more than 32 KiB."""
    return wire.Large(SimpleNamespace(buffer=memoryview(bytearray(frame))))
