"""The core of an active master with agents, processes, clients, operators and a standby that say anything well-formed.

Some of it is what they would say (`serves`: everybody does what the master wants), most of it is not: of nodes and
processes that are gone, in another order, twice, with odd numbers. Nothing of that may raise, keep the master busy with
nothing, leave a verb unanswered, or make a status that cannot be told.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import time
from random import Random
from typing import Any, ClassVar

import msgpack
from core_rig import HANDLERS, Rig
from sim import leftovers

from rota.cli import blacklist, quarantine, render
from rota.common import exits, messages, wire
from rota.common.errors import NOT_STARTED, OK
from rota.common.lifecycle import Intent
from rota.common.messages import Message
from rota.common.settings import HealthSettings, ServiceSettings, StandbySettings
from rota.common.wire import MORE, OLDER, RESENT
from rota.master import log
from rota.master.core import outbox
from rota.master.core.beginning import Heritage
from rota.master.core.engine_lease import Answer, EngineLease, Row
from rota.master.core.master import Master
from rota.master.core.pool import Request, Slot
from rota.master.core.records import Restored
from rota.master.core.verbs import ARGUMENTS

from .chance import ODD, number, odd_field, some
from .history import Violation

NODES = ("n1", "n2", "n3")
SERVICES = ("orders", "site", "mail")
CLIENTS = (b"c1", b"c2")
OPERATORS = ("o1", "o2")
STANDBY = b"s1"
TARGETS = ("orders.quote", "orders.again", "orders.keyed", "site.quote", "site.again", "orders.qote", "gone.quote", "x")
OLDER_EPOCH, EPOCH = 3, 5  # of the first master, and of one before it
STATUS_EVERY = 3  # steps: it costs more than most of them
LONG_TICK_S = 0.1  # of a master that has nothing to do; less is for what is under way

VERBS: Mapping[str, tuple[str, ...]] = {**ARGUMENTS, "nonsense": ("nodes",)}
CONDITIONS = ("active", "detached", "ready", "leader", "reloaded", "paused", "maintenance")
ACTIONS = ("list", "clear", "disable", "enable", "show", "retry", "drop")

# What nodes and operators have said last, and what had no end yet, beside what may stay where nobody does any harm.
STAYS = (
    "Census._must_tell",  # nodes that never came back
    "Checks._recorded",
    "Checks.exempt",
    "EngineLease.questions",  # one, which nobody answers here any more
    "Leases.proposed",
    "Maintenance.closed",
    "Node.failing",
    "Node.ports",
    "Node.tags",
    "Operators._alarms",  # of the journal
    "Quarantine._restored",  # until somebody offers their service
    "Restored.closed",
    "Restored.electorate_before",
    "Restored.exempt",
    "Restored.marked",
    "Restored.suspects",
)

Verb = tuple[bytes, int]  # over which connection, and its id
REFUSED = (exits.USAGE, exits.NOT_FOUND, exits.REFUSED)  # nothing was done


class MasterWorld(Rig):
    actions: ClassVar[Mapping[str, int]] = {
        "everybody_comes": 6,
        "agents_serve": 16,
        "processes_answer": 6,
        "agent_greets": 4,
        "agent_says": 8,
        "agent_leaves": 2,
        "process_greets": 3,
        "process_says": 8,
        "process_dies": 6,
        "client_greets": 2,
        "client_asks": 16,
        "client_says": 4,
        "operator_greets": 1,
        "operator_asks": 20,
        "operator_leaves": 1,
        "standby_says": 4,
        "voter_greets": 1,
        "time_passes": 10,
        "journal_lags": 2,
        "journal_fails": 0,
        "settings_change": 3,
        "sends_fail": 2,
        "master_restarts": 1,
        "is_told_to_stop": 0,
    }

    targets: ClassVar[tuple[str, ...]] = TARGETS
    flags: ClassVar[tuple[int, ...]] = (*[0] * 6, RESENT, RESENT | OLDER, OLDER, MORE, MORE)
    verbs: ClassVar[tuple[str, ...]] = tuple(VERBS)
    ended = False  # there is always a next master

    def __init__(self, restored: Restored | None = None, **settings: Any) -> None:
        self.boots = dict.fromkeys(NODES, "b1")
        self.alive: set[str] = set()  # nodes whose agents beat
        self.numbers: Counter[Any] = Counter()  # of what is numbered by its sender
        self.asked: dict[Verb, tuple[str, float]] = {}  # those without an answer → what, until when there must be one
        self.answered: dict[Verb, int] = {}  # the exit code of each
        self.connections: dict[str, bytes] = {}  # operator → route, each another one
        self.incarnations: list[str] = []  # all that were ever named
        self.checked = 0
        self.over = False  # it says nothing more
        super().__init__(restored=restored, epoch=EPOCH, heritage=Heritage(complete=True), **settings)
        self.flush()

    @property
    def epoch(self) -> int:
        return self.dispatch.epoch

    # ---- the shell ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """As the real one does, and until there is nothing more."""
        out, core = self.out, self.core
        for _ in range(100):
            super().flush()
            for slot in out.probes:
                self.fleet.processes.settle(slot, self.now)
            for effect in out.role:
                self.over = self.over or isinstance(effect, outbox.StepDown)
            for each in (out.probes, out.role, out.frontend, out.backend, out.cuts):
                each.clear()
            self._hear()
            if not self.durable and out.records:
                return
            if not out:
                return
        raise Violation(f"{core} has no end of things to do")

    def _hear(self) -> None:
        for route in self.connections.values():
            for message in self.said.pop(route, []):
                if isinstance(message, messages.Result):
                    self._answered(route, message)
        for name in NODES:
            for message in self.said.pop(name.encode(), []):
                if isinstance(message, messages.Leave):
                    self.alive.discard(name)
        self.said.clear()

    def _answered(self, route: bytes, result: messages.Result) -> None:
        verb = route, result.id
        if verb in self.answered or verb not in self.asked:
            raise Violation("a verb was answered twice, or never asked")
        del self.asked[verb]
        self.answered[verb] = result.exit
        self._show(result.data)

    def _show(self, data: Any) -> None:
        """As the command line does."""
        if "panics" in data:
            blacklist._lines(data)
        for entry in data.get("entries", ()):
            quarantine._table([entry])
        if "last_deaths" in data:
            quarantine._entry(data)
        for event in data.get("events", ()):
            log.line(event)
            render.event(event, render.Paint(True), "12:00:00")

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        if not self.over:
            for name in sorted(self.alive):
                node = self.fleet.nodes.get(name)
                if node is not None and node.route:
                    self._control(node.route, node.token, messages.Beat(1))
            self.core.tick(self.now)
            self.flush()
            self._end_if_ready()

    def _end_if_ready(self) -> None:
        if not self.over and self.core.ready_to_end(self.now):
            self.core.end()
            self.over = True
            self.flush()

    def _control(self, route: bytes, token: int, message: Message, kind: int = wire.CONTROL) -> None:
        if not self.over:
            self.core.control(route, messages.framed(kind, token, message), self.now)
            self.flush()

    # ---- agents ------------------------------------------------------------------------------------------------------

    def agent_greets(self, chance: Random) -> None:
        name = chance.choice(NODES)
        if chance.random() < 0.3:
            self.boots[name] = chance.choice(["b1", "b2", "b3", "b4"])
        boot = self.boots[name]
        offers = chance.choice([["orders"], ["orders", "site"], list(SERVICES), [], ["orders", "orders"], ["bad name"]])
        hello = messages.AgentHello(
            [1, 1],
            name,
            boot,
            number(chance, 0, self.epoch, self.epoch, OLDER_EPOCH),
            number(chance, 0, 1, 2, 2, 4),
            offers,
            chance.choice([{}, {}, {"rack": "a"}]),
            [self._started(chance, name, boot) for _ in range(chance.randint(0, 2))],
            [self._exited(chance) for _ in range(chance.choice([0, 0, 1]))],
            chance.choice(["active", "active", "active", "draining", "detached", "odd"]),
            number(chance, 0, 0, 1, 2),
            embedded=chance.random() < 0.1,
            leaving=chance.random() < 0.1,
            ended_ms=number(chance, -1, 10),
            up_ms=number(chance, 10, 1000),
        )
        self.alive.add(name)
        odd: Any = odd_field(chance, hello)
        odd = odd._replace(generation=min(odd.generation, 1 << 62))  # whoever claims more is told nothing it can read
        self._control(name.encode(), 0, odd, wire.HELLO)

    def _incarnation(self, chance: Random) -> str:
        known = list(self.fleet.processes.slots)
        pool = known if known and chance.random() < 0.8 else self.incarnations[-30:]
        return chance.choice(pool) if pool else "n1.b1.1"

    def _started(self, chance: Random, name: str, boot: str) -> messages.Started:
        incarnation = f"{name}.{boot}.{chance.randint(1, 6)}"
        self.incarnations.append(incarnation)
        return messages.Started(incarnation, chance.choice(SERVICES[:2]), b"t", number(chance, 1))

    def _last_number(self, incarnation: str) -> int:
        slot = self.fleet.processes.slots.get(incarnation)
        return slot.last_number if slot is not None else 3

    def _rows(self, chance: Random, last: int) -> list[messages.Row]:
        """Of a page that may be anybody's."""
        return [self._row(chance, last) for _ in range(chance.randint(0, 3))]

    def _row(self, chance: Random, last: int) -> messages.Row:
        which = number(chance, *range(max(0, last - 2), last + 1))
        epoch = chance.choice([0, OLDER_EPOCH, self.epoch - 1, self.epoch])
        code = chance.choice([OK, OK, NOT_STARTED, 3])
        reply = wire.head(wire.REPLY, 0, max(0, epoch), 5, max(0, which) % (1 << 63), 1, 0, code) + b"made"
        state, session = chance.choice([0, 1, 1, 2, 2, 3, 9]), chance.choice([b"c1" * 8, b"", bytes(16)])
        return messages.Row(which, state, session, number(chance, 1, 2), epoch, chance.choice([reply, b"", b"odd"]))

    def _exited(self, chance: Random, incarnation: str = "") -> messages.Exited:
        incarnation = incarnation or self._incarnation(chance)
        last = self._last_number(incarnation)
        rows = self._rows(chance, last)
        kind = chance.choice([*messages.End, "exited", "exited", "signalled", "", "odd"])
        started = number(chance, 0, last, last)
        return messages.Exited(
            incarnation, "orders", number(chance, -9, 0), "ended", started, rows, "text\n", str(kind)
        )

    def agent_says(self, chance: Random) -> None:
        nodes = [node for node in self.fleet.nodes.values() if node.route]
        if not nodes:
            return
        node, which, service = chance.choice(nodes), self._incarnation(chance), chance.choice([*SERVICES, "gone"])
        makers = (
            lambda: messages.Beat(1, number(chance, 0, 100), number(chance, 0), number(chance, 0, self.epoch)),
            lambda: self._started(chance, node.name, node.boot),
            lambda: self._exited(chance),
            lambda: messages.Ending(which),
            lambda: messages.Failing(service, number(chance, 0, 1, 3), number(chance, 500), "Traceback\nError: no"),
            lambda: messages.Recalled(
                which, number(chance, 0, 2, 5), number(chance, 0, 1), self._rows(chance, self._last_number(which))
            ),
            lambda: messages.Usage({which: number(chance, 1 << 20), "nobody": 3}),
            lambda: messages.Leaving(number(chance, 0, 1000)),
            lambda: messages.Unwell(service, chance.choice(["", "connection refused"])),
            lambda: messages.Reload(some(chance, [*SERVICES, "gone"])),
            lambda: messages.Verb(1, "status", {}),
            lambda: messages.Noted(which),
        )
        self._control(node.route, node.token, odd_field(chance, chance.choice(makers)()))

    def agent_leaves(self, chance: Random) -> None:
        nodes = [node for node in self.fleet.nodes.values() if node.route]
        if nodes:
            node = chance.choice(nodes)
            self.alive.discard(node.name)
            if chance.random() < 0.5:
                self.core.control(node.route, wire.head(wire.BYE, node.token), self.now)
                self.flush()

    # ---- processes ---------------------------------------------------------------------------------------------------

    def _slots(self) -> list[Slot]:
        return list(self.fleet.processes.slots.values())

    def _hello_of(self, chance: Random, incarnation: str, honest: bool) -> messages.ProcessHello:
        slot = self.fleet.processes.slots.get(incarnation)
        last = slot.last_number if slot is not None else 0
        held = [] if slot is None or not honest else [self._held(each) for each in slot.inflight.values()]
        if not honest:
            ids = [b"c1" * 8, b"c2" * 8, b"", bytes(16)]
            for _ in range(chance.randint(0, 2)):
                epoch = chance.choice([0, OLDER_EPOCH, self.epoch - 1, self.epoch])
                session, request = chance.choice(ids), number(chance, 1, 2)
                held.append(messages.Held(epoch, number(chance, 1, last), session, request, chance.random() < 0.3))
        return messages.ProcessHello(
            [1, 1],
            incarnation,
            b"t",
            slot.pool.name if slot is not None else "orders",
            "1" if honest else chance.choice(["1", "2", ""]),
            "d" if honest else chance.choice(["d", "e"]),
            HANDLERS,
            1 if honest else number(chance, 1, 4),
            1,
            last if honest else number(chance, 0, last),
            last if honest else number(chance, 0, last),
            0 if slot is None or not honest else slot.acked,
            held,
            done=b"" if honest else chance.choice([b"", bytes(24), b"odd"]),
            done_ms=number(chance, -1, 100),
        )

    def _held(self, request: Request) -> messages.Held:
        return messages.Held(request.epoch, request.delivery, request.session.id, request.number, False)

    def process_greets(self, chance: Random) -> None:
        which = self._incarnation(chance)
        route = which.encode() + chance.choice([b"", b"", b"'"])
        self._hello_from(route, odd_field(chance, self._hello_of(chance, which, False)))

    def _hello_from(self, route: bytes, hello: Message) -> None:
        if not self.over:
            self.core.backend(route, messages.framed(wire.HELLO, 0, hello), self.now)
            self.flush()

    def process_says(self, chance: Random) -> None:
        slots = [slot for slot in self._slots() if slot.connected]
        if not slots or self.over:
            return
        slot = chance.choice(slots)
        delivery = _unsigned(number(chance, *slot.inflight, 1))
        kind = chance.choice([wire.REPLY] * 4 + [wire.CHUNK] * 3 + [wire.CREDIT, wire.BYE, wire.PROBE, wire.ACK])
        request = slot.inflight.get(delivery)
        code = chance.choice([0, 0, 1, 2, 3, 5, 7, 11, 12, 12, 200])
        body, flags, tail = b"ok", chance.choice([0, 0, wire.RESENT, wire.MORE, wire.MORE | wire.RESENT]), b""
        if kind == wire.CREDIT:
            body = chance.choice([bytes(16), (1000).to_bytes(8, "little") * 2, b"odd", b"\xff" * 16])
        elif kind == wire.CHUNK:
            code = request.attempt if request is not None and chance.random() < 0.8 else 1
        elif code == 12:
            body = chance.choice([b"floor", b"fence", b""])
        if chance.random() < 0.3:
            flags, tail = flags | wire.ORIGIN, wire.ORIGIN_STRUCT.pack(b"c1" * 8, _unsigned(number(chance, 1, 2)))
        head = wire.head(
            kind,
            slot.token,
            epoch=chance.choice([request.epoch] * 5 + [0, OLDER_EPOCH, self.epoch + 1]) if request else self.epoch,
            time=chance.choice([0, 1000, 2**32 - 1]),
            number=delivery,
            upto=_unsigned(number(chance, slot.acked + 1)),
            below=_unsigned(number(chance, 0, 2)),
            code=code,
            flags=flags,
            tail=tail,
        )
        self.core.backend(slot.route, head + body, self.now)
        self.flush()

    def process_dies(self, chance: Random) -> None:
        """Mostly while it has something, and of that."""
        slots = [slot for slot in self._slots() if slot.inflight] or self._slots()
        slots = [slot for slot in slots if slot.node.route]
        if not slots:
            return
        slot = chance.choice(slots)
        report = self._exited(chance, slot.incarnation)
        if chance.random() < 0.7:
            rows = [
                messages.Row(number, messages.ROW_RUNNING, request.session.id, request.number, request.epoch)
                for number, request in slot.inflight.items()
            ]
            report = report._replace(started_upto=slot.last_number, rows=rows[-1:], kind="signalled")
        self._control(slot.node.route, slot.node.token, report)

    # ---- clients -----------------------------------------------------------------------------------------------------

    def client_greets(self, chance: Random) -> None:
        route = chance.choice(CLIENTS) + chance.choice([b"", b"", b"'"])
        hello = messages.ClientHello(
            [1, 1], chance.choice(CLIENTS) * 8, chance.choice([0, OLDER_EPOCH, self.epoch - 1, self.epoch])
        )
        if not self.over:
            self.core.frontend(route, messages.framed(wire.HELLO, 0, hello), self.now)
            self.flush()

    def client_asks(self, chance: Random) -> None:
        if self.over:
            return
        if not self.dispatch.routes:
            return self.client_greets(chance)
        route, session = chance.choice(list(self.dispatch.routes.items()))
        frames = [self._request(chance, route, session.token) for _ in range(chance.choice([1, 1, 1, 5, 12]))]
        if len(frames) > 1 and chance.random() < 0.5:
            frames = [frame for _, frame in wire.bundles(frames)]
        for frame in frames:
            self.core.frontend(route, frame, self.now)
        self.flush()

    def _request(self, chance: Random, route: bytes, token: int) -> bytes:
        self.numbers[route[:2]] += 1
        latest = self.numbers[route[:2]]
        meta: Any = {}
        flags = chance.choice(self.flags)
        if chance.random() < 0.2:
            flags, meta = flags | wire.KEYED, {"k": chance.choice(["a", "b"])}
        if chance.random() < 0.2:
            flags, meta = flags | wire.PINNED, {**meta, "s": chance.choice(["u", "v", "w"])}
        if chance.random() < 0.05:
            meta = chance.choice([{"k": 5, "s": 5}, 5, {}, "odd"])
        packed = msgpack.packb(meta) if meta or chance.random() < 0.05 else b""
        target = chance.choice(self.targets).encode()
        flags |= wire.META if packed else 0
        head = wire.head(
            wire.REQUEST,
            token,
            epoch=chance.choice([self.epoch] * 4 + [0, OLDER_EPOCH, self.epoch - 1, self.epoch + 1]),
            time=chance.choice([0, 50, 1000, 30_000, 30_000, 2**32 - 1]),
            number=_unsigned(number(chance, latest, latest, latest, max(1, latest - 1))),
            upto=_unsigned(number(chance, 0, 0, latest)),
            below=1,
            code=len(target),
            flags=flags,
            tail=target + packed,
        )
        return head + chance.choice([b"body", b"poison", b"x" * 3000])

    def client_says(self, chance: Random) -> None:
        if self.over or not self.dispatch.routes:
            return
        route, session = chance.choice(list(self.dispatch.routes.items()))
        kind = chance.choice([wire.CANCEL] * 3 + [wire.ACK, wire.CHUNK, wire.CHUNK, wire.CREDIT, wire.BYE, wire.WHO])
        body = chance.choice([b"", b"piece", bytes(16), (1000).to_bytes(8, "little") * 2, b"\xff" * 16])
        open_ = _unsigned(number(chance, *session.open, 1))
        flags = chance.choice([0, wire.MORE, wire.RESENT])
        below = _unsigned(number(chance, 0, 5))
        upto = _unsigned(number(chance, 0, session.sequence))
        head = wire.head(kind, session.token, number=open_, upto=upto, below=below, flags=flags)
        self.core.frontend(route, head + body, self.now)
        self.flush()

    # ---- operators ---------------------------------------------------------------------------------------------------

    def operator_greets(self, chance: Random) -> None:
        self._greet_operator(chance.choice(OPERATORS), chance.choice(["ann", "", "x" * 100]))

    def _greet_operator(self, name: str, user: str) -> bytes:
        self.numbers["connections"] += 1
        self.connections.setdefault(name, f"{name}.{self.numbers['connections']}".encode())
        self._control(self.connections[name], 0, messages.OperatorHello([1, 1], user), wire.HELLO)
        return self.connections[name]

    def operator_asks(self, chance: Random) -> None:
        who, operators = chance.choice(OPERATORS), self.core.operators
        route = self.connections.get(who) or self._greet_operator(who, "ann")
        if self.over or not operators.token(route):
            return
        self.numbers[route] += 1
        if chance.random() < 0.03:
            follow = messages.Follow(number(chance, 1, 2), number(chance, 0))
            return self._control(route, operators.token(route), follow)
        name = chance.choice(self.verbs)
        args = {each: self._argument(each, chance) for each in VERBS[name] if chance.random() < 0.6}
        verb = messages.Verb(self.numbers[route], name, args)
        wanted = args.get("timeout_s", 60.0)
        patience = wanted if name == "wait" and type(wanted) in (int, float) and 0 <= wanted < 1e9 else 60.0
        self.asked[route, verb.id] = name, self.now + patience
        before = self.core._records, self.core.events.last, self.core._leaving
        self._control(route, operators.token(route), verb)
        after = self.core._records, self.core.events.last, self.core._leaving
        if self.answered.get((route, verb.id)) in REFUSED and before != after:
            raise Violation(f"{name} was refused, and did something all the same")

    def _argument(self, name: str, chance: Random) -> Any:
        if chance.random() < 0.1:
            return chance.choice(ODD)
        match name:
            case "nodes" | "names":
                names = [*NODES, *SERVICES, "nobody", "other"]
                return some(chance, NODES if chance.random() < 0.6 else names)
            case "service":
                return chance.choice([*SERVICES, "orders", "gone"])
            case "condition":
                return chance.choice(CONDITIONS)
            case "action":
                return chance.choice(ACTIONS)
            case "id":
                return chance.choice([*self.dispatch.quarantine.ids(), ""])
            case "tags":
                return chance.choice([{}, {"rack": "a"}, {"rack": "b"}])
            case "processes" | "since" | "limit":
                return number(chance, 1, 2, 3)
            case "deadline_s" | "for_s" | "retry_after_s" | "timeout_s":
                return chance.choice([0, 0.5, 1, 5.0, 60.0, 3600, 1e8])
            case "reason" | "version":
                return chance.choice(["", "why", "2"])
        return chance.random() < 0.5

    def operator_leaves(self, chance: Random) -> None:
        route = self.connections.pop(chance.choice(OPERATORS), b"")
        token = self.core.operators.token(route)
        if token and not self.over:
            if chance.random() < 0.5:
                self.core.control(route, wire.head(wire.BYE, token), self.now)
            else:
                self.core.control_gone(route)
            self.asked = {verb: what for verb, what in self.asked.items() if verb[0] != route}
            self.flush()

    # ---- the other master, and voters --------------------------------------------------------------------------------

    def standby_says(self, chance: Random) -> None:
        if self.over:
            return
        followers = getattr(self.core.pair, "_followers", {})
        follower = next(iter(followers.values()), None)
        if follower is None or not follower.route or chance.random() < 0.2:
            name = chance.choice(["other", "other", "m", "third"])
            address = chance.choice(["tcp://other:7700", "tcp://new:7700", "odd"])
            hello = messages.PeerHello([1, 1], name, address, "backup", number(chance, 0, self.epoch), 1000, "majority")
            return self._control(STANDBY, 0, odd_field(chance, hello), wire.HELLO)
        if chance.random() < 0.1:
            self.core.control(STANDBY, wire.head(wire.BYE, follower.token), self.now)
            return self.flush()
        if chance.random() < 0.5:  # as it would
            honest = messages.Promise(self.core.pair._pulse, 1000, self.core._records, 3)
            return self._control(follower.route, follower.token, honest)
        promise = messages.Promise(
            number(chance, *range(max(0, self.core.pair._pulse - 2), self.core.pair._pulse + 1)),
            number(chance, 1000, 1000, 100),
            number(chance, self.core._records, self.core._records, 0),
            number(chance, 0, 1, 2, -1),
        )
        self._control(follower.route, follower.token, promise)

    def voter_greets(self, chance: Random) -> None:
        hello = messages.VoterHello([1, 1], chance.choice(NODES), "b1", number(chance, 0, *[self.epoch] * 5))
        self._control(b"v" + hello.node.encode(), 0, hello, wire.HELLO)

    # ---- everybody does what is wanted of him ------------------------------------------------------------------------

    def everybody_comes(self, chance: Random) -> None:
        """Those that are not here."""
        if self.over:
            return
        for name in NODES[: chance.randint(1, len(NODES))]:
            node = self.fleet.nodes.get(name)
            if node is None or str(node.liveness) != "live":
                fields: dict[str, Any] = {"boot": self.boots[name], "offers": ["orders", "site"], "up_ms": 1000}
                if node is not None and node.boot == fields["boot"]:
                    fields["processes"] = [
                        messages.Started(slot.incarnation, slot.pool.name, b"t", 1) for slot in node.slots.values()
                    ]
                self.alive.add(name)
                self._control(name.encode(), 0, _agent_hello(name, **fields), wire.HELLO)
        for session in CLIENTS:
            if session * 8 not in self.dispatch.sessions and not self.over:
                hello = messages.ClientHello([1, 1], session * 8, self.epoch)
                self.core.frontend(session, messages.framed(wire.HELLO, 0, hello), self.now)
                self.flush()
        self.agents_serve(chance)

    def agents_serve(self, chance: Random) -> None:
        """They start and stop what the master wants, and processes greet it."""
        for name in sorted(self.alive):
            node = self.fleet.nodes.get(name)
            if node is None or not node.route or self.over:
                continue
            for service, count in sorted(node.plan.items()):
                running = [slot for slot in node.slots.values() if slot.pool.name == service]
                for _ in range(min(4, count) - len(running)):
                    self.numbers[name] += 1
                    which = f"{node.name}.{node.boot}.{100 + self.numbers[name]}"
                    self.incarnations.append(which)
                    self._control(node.route, node.token, messages.Started(which, service, b"t", 1))
            for slot in list(node.slots.values()):
                if str(slot.stage) == "retired":
                    report = messages.Exited(slot.incarnation, slot.pool.name, 0, "stopped", slot.last_number, [], "")
                    self._control(node.route, node.token, report._replace(kind="stopped"))
                elif not slot.connected and str(slot.stage) != "exited":
                    self._hello_from(slot.incarnation.encode(), self._hello_of(chance, slot.incarnation, True))
        self.tick(0.02)

    def processes_answer(self, chance: Random) -> None:
        """Most of what they have."""
        often = chance.choice([0.3, 0.9])
        for slot in self._slots():
            for delivery, request in list(slot.inflight.items()):
                if slot.connected and not self.over and chance.random() < often:
                    epoch = request.epoch or self.epoch  # that of its delivery, also of a check
                    fields = {"epoch": epoch, "time": chance.choice([100, 1000, 10**6]), "number": delivery}
                    code = chance.choice([0, 0, 0, 1, 12])
                    head = wire.head(wire.REPLY, slot.token, upto=slot.acked + 1, code=code, **fields)
                    self.core.backend(slot.route, head + chance.choice([b"\xa0", b"\xa0", b"\xc0", b"odd"]), self.now)
                    self.flush()
        self.tick(0.02)

    # ---- time and the shell ------------------------------------------------------------------------------------------

    def time_passes(self, chance: Random) -> None:
        seconds = chance.choice([0.001, 0.02, 0.02, 0.1, 0.1, 0.2, 0.5, 0.5, 1.1, 4.0, 12.0, 70.0, 700.0])
        if chance.random() < 0.1:
            self.wall += chance.choice([-4000.0, 4000.0])
        if chance.random() < 0.1:
            return self.tick(seconds)
        while seconds > 0:
            self.tick(min(seconds, 0.5 if seconds < 5 else 7.0))
            seconds -= 0.5 if seconds < 5 else 7.0

    def journal_lags(self, chance: Random) -> None:
        self.durable = not self.durable
        self.flush()

    def journal_fails(self, chance: Random) -> None:
        if not self.over:
            self.core.journal_failed("no space left on device")
            self.flush()

    def settings_change(self, chance: Random) -> None:
        if chance.random() < 0.3:
            self.services.clear()
        else:
            self.services[chance.choice([*SERVICES, "gone"])] = _settings(chance)
        master = replace(
            self.sections.master,
            drain_deadline=chance.choice([0.0, 1.0, 60.0]),
            session_idle=chance.choice([10.0, 600.0]),
            queue_bytes=chance.choice([5000, 2**28]),
            max_message=chance.choice([2000, 2**20]),
            pins_limit=chance.choice([1, 100]),
            keys_bytes=chance.choice([10, 2**20]),
        )
        standby = replace(StandbySettings(), takeover_after=chance.choice([0.5, 1.0]))
        if not self.over:
            self.core.reconfigure(self.sections._replace(master=master, standby=standby))
            self.flush()

    def sends_fail(self, chance: Random) -> None:
        """What goes out next does not."""
        self.client_asks_unflushed(chance)
        out, core = self.out, self.core
        for slot in out.slots:
            frames, slot.outgoing = slot.outgoing, []
            if frames:
                core.undeliverable(slot, frames, chance.random() < 0.5, self.now)
        out.slots.clear()
        for session in out.sessions:
            answers, session.outgoing = session.outgoing, []
            if answers:
                self.dispatch.answer_blocked(session, answers, chance.random() < 0.5)
        out.sessions.clear()
        self.flush()

    def client_asks_unflushed(self, chance: Random) -> None:
        if not self.over:
            for route, session in list(self.dispatch.routes.items()):
                self.core.frontend(route, self._request(chance, route, session.token), self.now)

    def is_told_to_stop(self, chance: Random) -> None:
        if not self.over:
            self.core.stop(self.now)
            self.flush()

    def master_restarts(self, chance: Random) -> None:
        """It, or the next one, begins with what was recorded; everybody else is still there."""
        heritage = Heritage(
            answers=[(b"c1" * 8, wire.head(wire.ANSWER, 7, number=number(chance, 1, 2) % 1000, upto=1))],
            complete=chance.random() < 0.8,
        )
        self.core = self.made(Restored.of(self.records), self.epoch + 1, heritage)
        self.dispatch, self.fleet, self.out = self.core.dispatch, self.core.fleet, self.core.out
        self.asked.clear()
        self.connections.clear()
        self.over = False
        self.flush()

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        self._end_if_ready()
        if self.over:
            return
        self._check_deadlines()
        self.checked += 1
        if self.checked % STATUS_EVERY == 0:
            self._check_status()

    def _check_deadlines(self) -> None:
        """What is due is done by a tick, not only looked at."""
        self.core.tick(self.now)
        self.flush()
        due = self.core.next_deadline()
        if due <= self.now:
            raise Violation(f"after a tick at {self.now} the next one is due at {due}")

    def _check_status(self) -> None:
        status = self.core.status(self.now)
        messages.encode(messages.Result(1, True, 0, {"schema": 1, **status}))
        json.dumps(status, allow_nan=False)
        render.status(status, render.Paint(True), 80)

    def end(self) -> None:
        self.durable = True
        self.flush()
        self._check_records()
        self._check_verbs()
        self._check_rest()

    def _begin_again(self) -> MasterWorld:
        return MasterWorld(Restored.of(self.records))

    def _check_records(self) -> None:
        """A master that begins with the records wants of nodes what this one wanted."""
        if self.over:
            return
        found, known = Restored.of(self.records), self.core.known
        if sorted(found.records()) != sorted(known.records()):
            raise Violation("what was recorded is not what is known")
        again = self._begin_again()
        for name, node in self.fleet.nodes.items():
            other = again.fleet.nodes.get(name)
            word = node.by != "agent" and node.generation > 0  # an operator's
            if word and (other is None or (other.intent, other.generation) != (node.intent, node.generation)):
                raise Violation(f"{name} is {node.intent}, and after a restart {other and other.intent}")
            if node.recorded and name not in found.present:
                raise Violation(f"{name} may be given work, and the next master would not ask it")
        for mine, its, what in (
            (self.fleet.scaled, again.fleet.scaled, "sizes"),
            (self.fleet.checks.exempt, again.fleet.checks.exempt, "the blacklist"),
            (self.dispatch.maintenance.closed, again.dispatch.maintenance.closed, "what is closed"),
            (set(self.fleet.pauses.held), set(known.paused), "what is paused"),
        ):
            if mine != its:
                raise Violation(f"after a restart {what}: {its}, not {mine}")

    def _check_verbs(self) -> None:
        """Each has its answer once its time is over, and the next tick has come."""
        if self.over:
            return
        for _ in range(8):  # a standby that does not record what is to be durable is given up meanwhile
            self.tick(0.9)
        late = sorted({name for name, until in self.asked.values() if until < self.now})
        if late and not self.core.stopping:
            raise Violation(f"{', '.join(late)}: no answer")

    def _check_rest(self) -> None:
        """Once all nodes are gone and all waits over nothing is left to do."""
        if self.over:
            return
        self.alive.clear()
        for route in self.connections.values():
            self.core.control_gone(route)
        for seconds in (*[0.9] * 20, *[4e5] * 15, *[0.9] * 20):  # a longer gap is the master's own, and forgiven
            self.tick(seconds)
        if self.over:
            return
        draining = [node.name for node in self.fleet.nodes.values() if node.intent is Intent.DRAINING]
        if draining:
            raise Violation(f"{draining} drain for ever")
        for pool in self.dispatch.pools.values():
            left = pool.queued, len(pool.slots)
            if left != (0, 0):
                raise Violation(f"{pool.name} has {left} requests and processes left")
        if self.dispatch.queued_bytes:
            raise Violation(f"{self.dispatch.queued_bytes} bytes in queues that are empty")
        if not self.core.stopping and self.core.next_deadline() < self.now + LONG_TICK_S / 2:
            raise Violation(f"it is busy with nothing: {self._what_for()}")
        may_stay = {*leftovers.MAY_STAY, *STAYS}
        still = [name for name, count in leftovers.left([self.core]).items() if count and name not in may_stay]
        if still and not self.core.stopping:
            raise Violation(f"what has passed is still there: {', '.join(sorted(still))}")

    def _what_for(self) -> str:
        fleet, dispatch = self.fleet, self.dispatch
        what = {
            "recalls": fleet.recalls.busy(),
            "processes": fleet.processes.busy(),
            "sizes": fleet.staff.busy(),
            "answers": bool(dispatch.unsent),
            "suspects": dispatch.quarantine.busy(),
            "deadlines": dispatch.timers.next_deadline() is not None,
            "standby": self.core.pair.next_deadline() < self.now + LONG_TICK_S,
        }
        return ", ".join(name for name, busy in what.items() if busy) or "its pace"


class StoppedWorld(MasterWorld):
    """One whose journal fails, or that is told to stop, somewhere on its way."""

    actions: ClassVar[Mapping[str, int]] = {**MasterWorld.actions, "journal_fails": 1, "is_told_to_stop": 1}


class IllWorld(MasterWorld):
    """One whose nodes are asked how they are, and fall at once."""

    actions: ClassVar[Mapping[str, int]] = {
        **MasterWorld.actions,
        "everybody_comes": 10,
        "agent_greets": 1,
        "agent_leaves": 1,
        "processes_answer": 14,
        "process_dies": 10,
        "settings_change": 1,
        "time_passes": 16,
    }

    def __init__(self, restored: Restored | None = None) -> None:
        super().__init__(restored)
        health = replace(HealthSettings(), check="request", every=0.5, timeout=0.2, rise=1, fall=1, blacklist=0.2)
        self.default = replace(self.default, health=health, min_active=0, credit=None)
        self.core.reconfigure(self.sections)


class PoisonWorld(MasterWorld):
    """One whose processes die of what they are given, one at a time."""

    actions: ClassVar[Mapping[str, int]] = {**IllWorld.actions, "process_dies": 20, "client_asks": 24}
    targets = ("orders.again", "orders.quote")
    flags = (0, 0, 0, RESENT, MORE)
    verbs = ("quarantine", "quarantine", "reload", "maintenance", "pause", "resume", "forget", "status")

    def __init__(self, restored: Restored | None = None) -> None:
        super().__init__(restored)
        self.default = replace(self.default, quarantine_for=5.0, max_attempts=10, queue_limit=5)
        self.core.reconfigure(self.sections)


class StreamWorld(MasterWorld):
    """One whose callers and processes send pieces."""

    actions: ClassVar[Mapping[str, int]] = {**MasterWorld.actions, "client_says": 20, "process_says": 20}
    targets = ("orders.again", "orders.quote")
    flags = (MORE, MORE, MORE, MORE | RESENT, MORE | RESENT | OLDER)


class HeirWorld(MasterWorld):
    """One that begins again and again, while all others are still there."""

    actions: ClassVar[Mapping[str, int]] = {**MasterWorld.actions, "master_restarts": 8, "process_greets": 10}


class ForgetfulWorld(MasterWorld):
    """One without a journal."""

    def __init__(self) -> None:
        super().__init__(state=None)

    def _check_records(self) -> None:
        """Nobody keeps them."""

    def master_restarts(self, chance: Random) -> None:
        self.records.clear()
        super().master_restarts(chance)


class GroupWorld(MasterWorld):
    """One of several, where an engine decides which is active."""

    actions: ClassVar[Mapping[str, int]] = {**StoppedWorld.actions, "engine_answers": 12}

    def made(self, restored: Restored, epoch: int, heritage: Heritage, lease: EngineLease | None = None) -> Master:
        lease = self.lease = EngineLease("etcd", f"m{epoch}", 1.0, self.now)
        lease.take(epoch, self.now)
        return super().made(restored, epoch, heritage, lease)

    def _begin_again(self) -> MasterWorld:
        return GroupWorld(Restored.of(self.records))

    def engine_answers(self, chance: Random) -> None:
        self.lease.tick(self.now)
        for question in [*self.lease.questions]:
            self.lease.questions.remove(question)
            row = chance.choice([None, Row(0, "", 0), Row(3, question.me, question.epoch)])
            if chance.random() < 0.1:
                row = Row(number(chance, 1, 2), "another", number(chance, self.epoch, self.epoch + 1))
            if not self.over:
                answer = Answer(
                    question.number, row is not None and row.holder == question.me, row, "" if row else "no"
                )
                self.core.engine_answered(answer, self.now)
                self.flush()


def _settings(chance: Random) -> ServiceSettings:
    check = chance.choice(["heartbeat", "heartbeat", "port", "dummy", "request"])
    health = replace(
        HealthSettings(),
        check=check,
        port="db:5432" if check == "port" else None,
        handler=chance.choice([None, "quote"]) if check in ("dummy", "request") else None,
        every=chance.choice([0.1, 5.0]),
        timeout=0.05,
        rise=chance.choice([1, 2]),
        fall=chance.choice([1, 3]),
        blacklist=chance.choice([0.1, 5.0]),
        eject=chance.random() < 0.8,
    )
    least = chance.choice([None, None, 1, 3])
    return replace(
        ServiceSettings(),
        min_processes=least,
        max_processes=chance.choice([None, None, 3]) if least is None or least <= 3 else None,
        grow_after=0.01,
        shrink_after=1.0,
        min_active=chance.choice([0, 1, 2]),
        queue_limit=chance.choice([0, 3, 1000]),
        queue_timeout=chance.choice([0.001, 30.0, 86_400.0]),
        pause_for=chance.choice([0.1, 30.0]),
        credit=chance.choice([None, 1, 4]),
        balance=chance.choice(["least-loaded", "round-robin"]),
        weights=chance.choice([{}, {"n1": 256}]),
        ramp=chance.choice([0.0, 0.0, 5.0]),
        quarantine_for=chance.choice([1.0, 3600.0]),
        max_attempts=chance.choice([1, 2, 10]),
        retry_percent=chance.choice([0, 20]),
        retry_per_s=chance.choice([0, 10]),
        keys_for=chance.choice([0.0, 600.0]),
        drain_deadline=chance.choice([None, 0.0, 5.0]),
        reload_every=chance.choice([None, 60.0]),
        reload_at=chance.choice([None, time(0, 0)]),
        max_requests=chance.choice([None, 1, 10]),
        max_rss=chance.choice([None, 2**24]),
        max_age=chance.choice([None, 60.0]),
        health=health,
    )


def _unsigned(value: int) -> int:
    return value % (1 << 64)


def _agent_hello(name: str, **more: Any) -> messages.AgentHello:
    fields: dict[str, Any] = {"versions": [1, 1], "node": name, "epoch": 0, "capacity": 2, "tags": {}}
    fields |= {"processes": [], "exits": [], "intent": "active", "generation": 0}
    return messages.AgentHello(**fields | more)
