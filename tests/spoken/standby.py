"""The core of a standby whose active master, voters and operators say anything well-formed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

from standby_rig import StandbyRig, T, sections

from rota.cli import render
from rota.common import messages, wire
from rota.common.messages import Message
from rota.common.settings import MasterSettings, ServiceSettings, StandbySettings
from rota.master.core import records
from rota.master.core.beginning import Heritage, Identity, Past, Sections
from rota.master.core.engine_lease import Answer, EngineLease, Row
from rota.master.core.engine_standby import EngineStandby
from rota.master.core.events import EventLog
from rota.master.core.follower import ANSWERS, COPY
from rota.master.core.master import Master
from rota.master.core.outbox import BecomeActive
from rota.master.core.pair_standby import PairStandby
from rota.master.core.records import Peer, Restored
from rota.master.core.standby import Standby

from .chance import ODD, number, odd_field, some
from .history import Violation
from .master import VERBS

NODES = ("a", "b", "c")
OTHER = "other"


class StandbyWorld(StandbyRig[Standby]):
    other = OTHER
    actions: ClassVar[Mapping[str, int]] = {
        "active_follows": 8,
        "active_says": 12,
        "active_pulses": 10,
        "active_answers": 3,
        "link_breaks": 3,
        "link_opens": 3,
        "voters_greet": 6,
        "voters_answer": 10,
        "others_greet": 2,
        "operator_asks": 6,
        "time_passes": 14,
        "settings_change": 1,
        "is_told_to_stop": 0,
    }

    def __init__(self) -> None:
        super().__init__()
        self.master: Master | None = None
        self.verbs = 0
        self.core = self.made()
        self.log = EventLog(lambda: 1_000_000.0)  # of the active
        self.flush()

    @property
    def ended(self) -> bool:
        return self.master is not None

    def made(self) -> Standby:
        settings = replace(StandbySettings(), backup_of=("tcp://other:7700",), takeover_after=T)
        known = Restored()
        return PairStandby(
            Identity("me", address="tcp://me:7700"), sections(settings), Past(known), self.sources, self.now
        )

    # ---- the shell ---------------------------------------------------------------------------------------------------

    def _effect(self, effect: Any) -> None:
        super()._effect(effect)
        if isinstance(effect, BecomeActive) and self.master is None:
            self._take_over(effect)

    def _take_over(self, won: BecomeActive) -> None:
        """As the shell does: what it has is enough for a master."""
        standby = self.core
        heritage = Heritage(won.granted, won.answers, standby.history(), won.complete)
        given = Sections(MasterSettings(state="/nowhere"), lambda name: ServiceSettings(), StandbySettings())
        past = Past(standby.mirror.known, epoch=won.epoch, epoch_by="me")
        self.master = Master(Identity("me"), given, past, self.sources, heritage, self.lease(), self.now)
        self.core.out.control += standby.won()
        for _ in range(3):
            self.now += 0.5
            self.master.tick(self.now)
        self._check_status(self.master.status(self.now))

    def lease(self) -> EngineLease | None:
        return None

    def hears(self, node: str, message: Any) -> None:
        if node.startswith("op"):
            self.verbs -= isinstance(message, messages.Result)
        else:
            super().hears(node, message)

    def link_said(self, message: Message, kind: int = wire.CONTROL) -> None:
        if self.master is None:
            token = self.core._link_token or 99
            self.core.from_link(messages.framed(kind, token, message), self.now)
            self.flush()

    # ---- the active master -------------------------------------------------------------------------------------------

    def active_follows(self, chance: Random) -> None:
        epoch = max(1, self.core.epoch) + (chance.random() < 0.1)
        self.link_opens(chance)
        self.link_said(messages.Welcome(1, epoch, self.other), wire.WELCOME)
        snapshot = [records.electorate(some(chance, NODES))]
        if chance.random() < 0.3:
            snapshot = [records.electorate(some(chance, NODES), some(chance, NODES))]
        if chance.random() < 0.3:
            snapshot += [records.present("n1", True), records.scaled("orders", 3), records.exempt("n1", True)]
        self.sequence = 7
        self.link_said(messages.Replica(self.sequence, snapshot, True, False))
        self.pulse(epoch)

    def active_pulses(self, chance: Random) -> None:
        for _ in range(chance.choice([1, 3, 10])):
            if self.master is None:
                self._pass_by(0.1)
                self.pulses += 1
                self.link_said(messages.Pulse(self.pulses, max(1, self.core.epoch), self.sequence))

    def active_says(self, chance: Random) -> None:
        epoch = number(chance, self.core.epoch, self.core.epoch, self.core.epoch + 1)
        self.log.tell("odd", "n1", "something happened")
        found = self.log.since(0)
        if chance.random() < 0.2:
            found.append(chance.choice([{}, {"number": 5}, {**found[0], "number": "5"}, {**found[0], "more": 1}]))
        record = chance.choice(
            [records.electorate(some(chance, NODES)), records.forgotten("n1"), records.peer(None), b"odd", b"\x80"]
        )
        self.sequence += 1
        sequence = number(chance, *[self.sequence] * 5)
        makers = (
            lambda: messages.Replica(sequence, [record], chance.random() < 0.1, chance.random() < 0.1),
            lambda: messages.Replica(sequence, [], chance.random() < 0.1),
            lambda: messages.Pulse(number(chance, self.pulses), epoch, sequence),
            lambda: messages.Happened(0, found),
            lambda: messages.Closing(epoch, chance.random() < 0.5, chance.choice(["", "me", "third"])),
            lambda: messages.Welcome(1, epoch, self.other, state=chance.choice(["active", "standby", "candidate"])),
            lambda: messages.Refusal("denied", "why", number(chance, 0, 1000) % 10**6, [1, 1]),
            lambda: messages.Verb(1, "status", {}),
        )
        self.link_said(odd_field(chance, chance.choice(makers)()))

    def active_answers(self, chance: Random) -> None:
        answer = wire.head(wire.ANSWER, 7, number=number(chance, 1, 2) % (1 << 64), upto=chance.choice([1, 5]))
        copies = COPY.pack(b"c" * 16, 0, len(answer)) + answer
        body = chance.choice([copies, copies * 2, copies[:-5], copies + b"odd", b""])
        if self.master is None:
            self.core.from_link(wire.head(ANSWERS, self.core._link_token or 99) + body, self.now)
            self.flush()

    def link_breaks(self, chance: Random) -> None:
        if self.master is None:
            if chance.random() < 0.5:
                self.core.link_lost(self.now)
            else:
                kind = chance.choice([wire.BYE, wire.WHO, wire.PROBE, wire.DELIVER])
                self.core.from_link(wire.head(kind, self.core._link_token), self.now)
            self.flush()

    def link_opens(self, chance: Random) -> None:
        if self.master is None:
            self._pass_by(0.3)
            self.core.link_opened()
            self.flush()

    # ---- voters, and others ------------------------------------------------------------------------------------------

    def voters_greet(self, chance: Random) -> None:
        for node in some(chance, [*NODES, "stranger"]):
            epoch = number(chance, *[self.core.epoch] * 5, self.core.epoch + 1)
            hello = messages.VoterHello([1, 1], node, "boot", epoch)
            self._control(node.encode(), 0, odd_field(chance, hello), wire.HELLO)

    def voters_answer(self, chance: Random) -> None:
        for node, token in list(self.voters.items()):
            candidacy = self.core.candidacy
            epoch = number(chance, *[candidacy.epoch] * 6)
            answer: Message = messages.Grant(epoch, number(chance, -1, candidacy.epoch), candidacy.stage == "polling")
            if chance.random() < 0.2:
                seen = number(chance, candidacy.epoch, candidacy.epoch + 1)
                answer = messages.Deny(epoch, seen, number(chance, 0, 100), "why")
            self._control(node.encode(), token, answer)

    def others_greet(self, chance: Random) -> None:
        hello = chance.choice(
            [
                messages.AgentHello([1, 1], "a", "b", number(chance, 1), 1, [], {}, [], [], "active", 0),
                messages.PeerHello([1, 1], "third", "tcp://third:7700", "backup", number(chance, 0), 1000, "majority"),
                messages.ClientHello([1, 1], b"c" * 16),
                messages.OperatorHello([9, 9], "ann"),
            ]
        )
        if self.master is None:
            frame = messages.framed(wire.HELLO, 0, hello)
            chance.choice([self.core.control, self.core.frontend, self.core.backend])(b"x", frame, self.now)
            self.flush()

    def operator_asks(self, chance: Random) -> None:
        if "op" not in self.voters:
            self._control(b"op", 0, messages.OperatorHello([1, 1], "ann"), wire.HELLO)
        if self.master is not None or "op" not in self.voters:
            return
        name = chance.choice([*VERBS, "status", "switchover", "switchover", "events"])
        args = {each: chance.choice([True, 1, *ODD]) for each in (*VERBS[name], "force") if chance.random() < 0.5}
        self.verbs += 1
        self._control(b"op", self.voters["op"], messages.Verb(1, name, args))
        if self.verbs:
            raise Violation(f"{name} has no answer")
        if chance.random() < 0.1:
            self._control(b"op", self.voters["op"], messages.Follow(1, number(chance, 0)))

    def _control(self, route: bytes, token: int, message: Message, kind: int = wire.CONTROL) -> None:
        if self.master is None:
            self.core.control(route, messages.framed(kind, token, message), self.now)
            self.flush()

    # ---- time --------------------------------------------------------------------------------------------------------

    def _pass_by(self, seconds: float) -> None:
        if self.master is None:
            self.now += seconds
            self.core.tick(self.now)
            self.flush()

    def time_passes(self, chance: Random) -> None:
        seconds = chance.choice([0.02, 0.1, 0.5, 1.0, 2.0, 4.0, 30.0])
        if chance.random() < 0.2:
            return self._pass_by(seconds)
        for _ in range(10):
            self._pass_by(seconds / 10)

    def settings_change(self, chance: Random) -> None:
        self.core.reconfigure(sections(replace(self.core.settings, takeover_after=chance.choice([0.5, 1.0]))))

    def is_told_to_stop(self, chance: Random) -> None:
        if self.master is None:
            self.core.stop(self.now)
            self.flush()

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        if self.master is None:
            if self.core.next_deadline() <= self.now and not self.core.tick(self.now):  # type: ignore[func-returns-value]
                self.flush()
            if self.core.next_deadline() <= self.now:
                raise Violation("a tick changes nothing about what is due")
            self._check_status(self.core.status(self.now))

    def _check_status(self, status: dict[str, Any]) -> None:
        messages.encode(messages.Result(1, True, 0, {"schema": 1, **status}))
        json.dumps(status, allow_nan=False)
        render.status(status, render.Paint(True), 80)

    def end(self) -> None:
        """What it records can be read again."""
        if self.master is None:
            Restored.of(self.core.mirror.known.records())


class PrimaryWorld(StandbyWorld):
    """One that was active, and found another one in its place."""

    actions: ClassVar[Mapping[str, int]] = {**StandbyWorld.actions, "is_told_to_stop": 1}

    def made(self) -> Standby:
        known = Restored()
        known.peer = Peer(OTHER, "tcp://other:7700", "backup")
        known.electorate = frozenset(NODES)
        past = Past(known, epoch=5, epoch_by="me")
        settings = sections(replace(StandbySettings(), takeover_after=T))
        return PairStandby(Identity("me", address="tcp://me:7700"), settings, past, self.sources, self.now)


class EngineWorld(StandbyWorld):
    """One of several, where an engine decides."""

    actions: ClassVar[Mapping[str, int]] = {**StandbyWorld.actions, "engine_answers": 14, "is_told_to_stop": 1}

    def made(self) -> Standby:
        self.row = Row(0, "", 0)
        self.right = EngineLease("etcd", "me life", T, self.now)
        others = ("tcp://other:7700", "tcp://third:7700")
        settings = sections(replace(StandbySettings(), backup_of=others, takeover_after=T))
        identity = Identity("me", address="tcp://me:7700")
        return EngineStandby(identity, settings, Past(Restored()), self.sources, self.right, self.now)

    def lease(self) -> EngineLease | None:
        return self.right

    def engine_answers(self, chance: Random) -> None:
        while self.right.questions and self.master is None:
            question = self.right.questions.pop(0)
            if chance.random() < 0.2:
                holder, epoch = chance.choice(["", "other life"]), number(chance, self.core.epoch, self.core.epoch + 1)
                self.row = Row(self.row.stamp + 1, holder, min(epoch, 1000))
            changed = question.stamp is not None and question.stamp == self.row.stamp
            if changed:
                self.row = Row(self.row.stamp + 1, question.holder, question.epoch)
            away = chance.random() < 0.2
            answer = Answer(question.number, changed and not away, None if away else self.row, "away" if away else "")
            assert isinstance(self.core, EngineStandby)
            self.core.engine_answered(answer, self.now)
            self.flush()
