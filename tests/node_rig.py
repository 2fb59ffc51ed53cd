"""An agent's core with its shell and its masters played: time is a number."""

from __future__ import annotations

from typing import Any

from rota.common import messages
from rota.common.messages import Plan
from rota.worker.core.effects import Connect, Effect, Hello, Send, Spawn
from rota.worker.core.processes import Timing
from rota.worker.core.supervision import Supervision
from rota.worker.core.votes import Votes


class Node:
    """A Supervision with the shell's part played: what is spawned gets a pid, time jumps as the test says."""

    def __init__(self, epoch: int = 0, **options: Any) -> None:
        self.now = 100.0
        self.core = Supervision(
            "web-1",
            "3f2a9c",
            **{
                "masters": ["tcp://a:7700", "tcp://b:7700"],
                "capacity": 4,
                "offers": ["orders"],
                "tags": {},
                "reconnect_delay": lambda failures: 0.1 * (failures + 1),
                "votes": Votes(0.0, epoch),
                "timing": Timing(60.0, 10.0),
                **options,
            },
        )
        self.pids = 0

    def tick(self, seconds: float = 0.0) -> list[Effect]:
        self.now += seconds
        effects = self.core.tick(self.now)
        for effect in list(effects):
            if isinstance(effect, Spawn):
                self.pids += 1
                effects += self.core.processes.spawned(effect.incarnation, b"t" * 16, self.pids, self.now)
        return effects

    def advance(self, seconds: float) -> list[Effect]:
        """In steps of 50 ms, the master answering."""
        effects: list[Effect] = []
        for _ in range(round(seconds / 0.05)):
            effects += self.tick(0.05)
            if self.core.connection.greeted:
                self.hear(messages.Beat(1))
        return effects

    def hear(self, message: messages.Message) -> list[Effect]:
        return self.core.received(message, self.now)

    def join(self, epoch: int = 1) -> list[Effect]:
        assert Connect(self.core.connection.master) in self.tick()
        assert isinstance(self.core.connected(self.now)[0], Hello)
        return self.core.welcomed(messages.Welcome(1, epoch, "m"), self.now)

    def plan(self, count: int) -> list[Effect]:
        self.hear(Plan({"orders": count}))
        return self.tick()

    def ready(self, *incarnations: str) -> None:
        for each in incarnations or list(self.core.processes.alive):
            self.core.processes.ready(each, self.now)

    def die(self, incarnation: str, status: int = 1, text: str = "") -> list[Effect]:
        return self.core.processes.exited(incarnation, status, f"exited with {status}", 0, [], text, self.now)


def spawns(effects: list[Effect]) -> list[str]:
    return [effect.incarnation for effect in effects if isinstance(effect, Spawn)]


def sent(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def welcome(epoch: int = 1, master: str = "a", **options: Any) -> messages.Welcome:
    return messages.Welcome(1, epoch, master, **options)


def dialled(effects: list[Effect]) -> list[int]:
    return [effect.master for effect in effects if isinstance(effect, Connect)]


def joined() -> Node:
    """Its master knows it."""
    made = Node()
    made.join()
    return made


def leasing() -> Node:
    """It obeys master 0, which has a standby and needs leases, and remembers an earlier life."""
    made = Node(epoch=1)
    made.core.connection.in_touch = True
    made.tick()
    made.core.connected(made.now)
    made.core.welcomed(welcome(lease_ms=1000), made.now)
    return made
