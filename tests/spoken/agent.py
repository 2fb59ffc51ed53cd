"""The core of an agent whose masters say anything well-formed, and whose processes do anything that they can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, ClassVar

from node_rig import Node

from rota.common import fields, messages
from rota.common.messages import Message, PortCheck
from rota.worker.core.effects import (
    Connect,
    Effect,
    Hello,
    Kill,
    Lease,
    Quit,
    Send,
    SetFloor,
    Spawn,
    Stop,
    Try,
    Unsure,
)
from rota.worker.core.processes import Overdue
from rota.worker.core.votes import Votes

from .chance import number, odd_field, some
from .history import Violation

SERVICES = ("orders", "site")
CODES = ("incompatible", "busy", "unknown", "interface", "name in use", "standby", "denied", "port", "odd")
WORD_MAX = 1 << 64
ROW = messages.Row(3, 1, b"s" * 16, 1, 1)
TICKS = 3  # after which nothing more is due at this moment


class AgentWorld(Node):
    actions: ClassVar[Mapping[str, int]] = {
        "comes_up": 8,
        "master_says": 16,
        "master_welcomes": 3,
        "master_refuses": 2,
        "master_asks_who": 1,
        "connection_breaks": 2,
        "process_comes_up": 10,
        "process_runs": 4,
        "process_ends": 5,
        "candidate_asks": 4,
        "candidate_wins": 1,
        "port_answers": 2,
        "time_passes": 12,
        "is_signalled": 1,
        "is_told_to_leave": 0,
    }

    capacity = 2
    offers: ClassVar[tuple[str, ...]] = SERVICES

    def __init__(self, **options: Any) -> None:
        self.spawning: list[str] = []
        self.ever: list[str] = []
        self.tries: list[Try] = []
        self.connected = self.over = False
        super().__init__(capacity=self.capacity, offers=list(self.offers), votes=Votes(0.0, 1), **options)

    @property
    def ended(self) -> bool:
        return self.over

    # ---- the shell ---------------------------------------------------------------------------------------------------

    def do(self, effects: Iterable[Effect]) -> None:
        core = self.core
        for effect in effects:
            match effect:
                case Send(message) | Hello(message):
                    messages.decode(messages.encode(message))
                case Spawn(incarnation, service):
                    if service not in self.offers or incarnation in self.ever:
                        raise Violation(f"{incarnation} of {service} is to be started")
                    self.spawning.append(incarnation)
                    self.ever.append(incarnation)
                case Stop(incarnation) | Kill(incarnation, _):
                    if incarnation not in core.processes.alive:
                        raise Violation(f"{incarnation} is to be ended, and has ended")
                case SetFloor(incarnation, floor, _):
                    if not 0 <= floor < WORD_MAX:
                        raise Violation(f"no word of a page holds {floor}")
                    self.do(core.processes.recalled(incarnation, floor, 3, [ROW]))
                case Try():
                    self.tries.append(effect)
                case Connect():
                    self.connected = False
                case Lease(master, epoch, lasts_s):
                    core.votes.leased(master, epoch, lasts_s, self.now)
                case Unsure(lasts_s):
                    core.votes.unsure(self.now + lasts_s)
                case Quit():
                    self.over = True
        if len(core.processes.alive) > 2 * self.capacity:
            raise Violation(f"{len(core.processes.alive)} processes where there is room for {self.capacity}")

    def heard(self, message: Message) -> Message:
        """As it comes over a socket; what cannot be read does not."""
        return messages.decode(messages.encode(message))

    # ---- masters -----------------------------------------------------------------------------------------------------

    def comes_up(self, chance: Random) -> None:
        """All that is to be done until a master that has a plan knows it."""
        connection = self.core.connection
        if not connection.greeted:
            if not self.connected:
                self.pass_by(max(0.0, min(5.0, connection.next_deadline() - self.now)))
                self.connected = True
                self.do(self.core.connected(self.now))
            lease_ms = chance.choice([0, 1000])
            self.do(self.core.welcomed(messages.Welcome(1, self.core.epoch, "m", lease_ms=lease_ms), self.now))
        self.say(messages.Plan({"orders": chance.randint(0, 2), "site": chance.randint(0, 2)}))

    def say(self, message: Message) -> None:
        if self.core.connection.greeted:
            try:
                heard = self.heard(message)
            except fields.BadMessage:
                return
            self.do(self.core.received(heard, self.now))
            self.do(self.core.tick(self.now))

    def master_says(self, chance: Random) -> None:
        which = chance.choice(self.ever[-6:] or ["nobody"])
        check = PortCheck(chance.choice(["db:5432", "odd", ""]), number(chance, 100, 1000), number(chance, 50))
        makers = (
            lambda: messages.Beat(number(chance, 1, 2)),
            lambda: messages.Plan(
                {chance.choice([*SERVICES, "gone"]): number(chance, 0, 1, 2)},
                {"orders": number(chance, 1000)},
                {each: check for each in some(chance, [*SERVICES, "gone"], 2)},
            ),
            lambda: messages.Plan({}),
            lambda: messages.Retire(which, number(chance, 0, 1000)),
            lambda: messages.Recall(which, number(chance, 0, 5)),
            lambda: messages.Intent(
                chance.choice(["active", "draining", "detached", "odd"]), number(chance, 1, 2), "ann", "why", "2"
            ),
            lambda: messages.Noted(which),
            lambda: messages.Release(number(chance, 1, self.core.epoch)),
            lambda: messages.Verb(1, "status", {}),
        )
        self.say(odd_field(chance, chance.choice(makers)()))

    def master_welcomes(self, chance: Random) -> None:
        """One of an older or a newer epoch, or a standby."""
        epoch = number(chance, max(0, self.core.epoch - 1), self.core.epoch, self.core.epoch + 1)
        state = chance.choice(["active", "active", "standby", "candidate", "odd"])
        ports = {"frontend_port": number(chance, 7701), "backend_port": number(chance, 7702)}
        lease_ms = number(chance, 0, 1000)
        try:
            welcome = self.heard(messages.Welcome(1, epoch, "m", state=state, lease_ms=lease_ms, **ports))
        except fields.BadMessage:
            return
        assert isinstance(welcome, messages.Welcome)
        if welcome.backend_port << 16 >= WORD_MAX or welcome.backend_port < 0:
            raise Violation(f"no word of a page holds port {welcome.backend_port}")
        self.do(self.core.welcomed(welcome, self.now))

    def master_refuses(self, chance: Random) -> None:
        refusal = messages.Refusal(chance.choice(CODES), "why", number(chance, 0, 100, 1000) % 10**9, [1, 1])
        self.do(self.core.refused(refusal, self.now))

    def master_asks_who(self, chance: Random) -> None:
        self.do(self.core.who(self.now))

    def connection_breaks(self, chance: Random) -> None:
        self.connected = False
        self.do(self.core.connection.lost(self.now))

    # ---- candidates --------------------------------------------------------------------------------------------------

    def candidate_asks(self, chance: Random) -> None:
        epoch = number(chance, self.core.epoch, self.core.epoch + 1, self.core.epoch + 2)
        vote = messages.Vote(epoch, chance.choice(["m", "other"]), number(chance, 1000) % 10**9, chance.random() < 0.3)
        try:
            self.heard(vote)
        except fields.BadMessage:
            return
        votes = self.core.votes
        denied, granted = votes.refusal(vote, self.now), votes.ballot
        if denied is not None:
            messages.decode(messages.encode(denied))
        elif not vote.poll:
            if granted is not None and granted.epoch == vote.epoch and granted.master != vote.master:
                raise Violation(f"{granted.master} and {vote.master} have its vote in epoch {vote.epoch}")
            self.do(self.core.voted(vote, self.now))

    def candidate_wins(self, chance: Random) -> None:
        self.do(self.core.connection.won(chance.randint(0, 1), number(chance, 1, self.core.epoch), self.now))

    # ---- processes ---------------------------------------------------------------------------------------------------

    def process_comes_up(self, chance: Random) -> None:
        while self.spawning:
            which = self.spawning.pop(0)
            if chance.random() < 0.1:
                self.do(self.core.processes.exited(which, 70, "could not be started", 0, [], "", self.now))
                continue
            self.pids += 1
            self.do(self.core.processes.spawned(which, b"t" * 16, self.pids, self.now))
        for which in list(self.core.processes.alive):
            if chance.random() < 0.6:
                self.do(self.core.processes.ready(which, self.now))

    def _known(self, chance: Random) -> str:
        alive = [which for which in self.core.processes.alive if which not in self.spawning]
        return chance.choice(alive) if alive else ""

    def process_runs(self, chance: Random) -> None:
        which = self._known(chance)
        overdue = chance.choice([None, None, Overdue(1.0, 0), Overdue(1.0, 2), Overdue(1.0, 0, True)])
        if which:
            self.do(self.core.processes.seen(which, chance.randint(0, 3), overdue, self.now))
            self.do(self.core.processes.weighed({which: number(chance, 1 << 20) % (1 << 60)}))

    def process_ends(self, chance: Random) -> None:
        which = self._known(chance)
        if which:
            status, upto = chance.choice([0, 1, -9, -6]), chance.choice([0, 3])
            oom = chance.random() < 0.2
            self.do(self.core.processes.exited(which, status, "ended", upto, [ROW], "text", self.now, oom))

    def port_answers(self, chance: Random) -> None:
        if self.tries:
            each = self.tries.pop(chance.randrange(len(self.tries)))
            self.do(self.core.tried(each.service, each.number, chance.choice(["", "refused"])))

    # ---- time, and people --------------------------------------------------------------------------------------------

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.core.tick(self.now))

    def time_passes(self, chance: Random) -> None:
        seconds = chance.choice([0.0, 0.05, 0.2, 0.2, 1.5, 3.5, 12.0, 70.0])
        if chance.random() < 0.3:
            return self.pass_by(seconds)
        for _ in range(10):
            self.pass_by(seconds / 10)

    def is_signalled(self, chance: Random) -> None:
        self.do(self.core.reload() if chance.random() < 0.5 else self.core.resize(chance.choice([0, 1, 2]), self.now))

    def is_told_to_leave(self, chance: Random) -> None:
        if chance.random() < 0.3:
            return self.say(messages.Leave())
        self.do(self.core.leaving.ask(chance.choice([0.0, 60.0]), self.now))

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        for _ in range(TICKS):
            self.do(self.core.tick(self.now))
        if not self.over and self.core.next_deadline() <= self.now:
            raise Violation(f"after ticks at {self.now} the next one is due at {self.core.next_deadline()}")
        messages.decode(messages.encode(self.core.hello(self.now)))

    def end(self) -> None:
        """Whatever happened, it can be ended."""
        self.do(self.core.leaving.at_once(self.now))
        for which in list(self.core.processes.alive):
            self.do(self.core.processes.exited(which, -9, "killed", 0, [], "", self.now))
        self.pass_by(0.1)
        if not self.over:
            raise Violation("nothing runs, and it does not end")


class LeavingWorld(AgentWorld):
    actions: ClassVar[Mapping[str, int]] = {**AgentWorld.actions, "is_told_to_leave": 1}


class WitnessWorld(LeavingWorld):
    """It votes, and runs nothing whatever it is told."""

    capacity = 0
    offers = ()
