"""A standby's core with an active master and agents that say exactly what a test tells them to; time is a number."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from rota.common import messages, wire
from rota.common.messages import Grant, Pulse, Replica, VoterHello, Welcome
from rota.common.settings import MasterSettings, ServiceSettings, StandbySettings
from rota.master.core.beginning import Sections, Sources
from rota.master.core.candidacy import Stage
from rota.master.core.outbox import Rise, SayPeer
from rota.master.core.standby import Standby

TOKEN = 99  # of the active's WELCOME
T = 1.0  # takeover_after
SNAPSHOT = 7  # number of the last record in it
TICK_S = 0.02

Core = TypeVar("Core", bound=Standby)


class StandbyRig(Generic[Core]):
    core: Core
    other = "other"  # the active's name

    def __init__(self) -> None:
        self.now = 100.0
        self.effects: list[Any] = []
        self.said: list[Any] = []  # to the active
        self.voters: dict[str, int] = {}  # token of each
        self.asked: dict[str, list[Any]] = {}  # votes of each
        self.pulses = self.tokens = 0
        self.sequence = SNAPSHOT  # of the active's last record
        self.sources = Sources(self._token, lambda: 1_000_000.0)

    def _token(self) -> int:
        self.tokens += 1
        return self.tokens

    # ---- the active --------------------------------------------------------------------------------------------------

    def follow(self, epoch: int = 1) -> None:
        """The link is up, the snapshot is here, the first pulse was answered."""
        self.core.link_opened()
        self.link(Welcome(1, epoch, self.other), wire.WELCOME)
        self.link(Replica(SNAPSHOT, self.snapshot(), True, False))
        self.pulse(epoch)

    def snapshot(self) -> list[bytes]:
        return []

    def link(self, message: Any, kind: int = wire.CONTROL, token: int = TOKEN) -> None:
        self.core.from_link(messages.framed(kind, token, message), self.now)
        self.flush()

    def goes_on(self, epoch: int) -> None:
        """The active does what it does all the time."""
        self.pulse(epoch)

    def pulse(self, epoch: int = 1) -> None:
        self.pulses += 1
        self.link(Pulse(self.pulses, epoch, self.sequence))

    # ---- the agents --------------------------------------------------------------------------------------------------

    def greet(self, *nodes: str) -> None:
        for node in nodes:
            hello = VoterHello([1, 1], node, "boot", 1)
            self.core.control(node.encode(), messages.framed(wire.HELLO, 0, hello), self.now)
            self.flush()

    def say(self, node: str, message: Any) -> None:
        frame = messages.framed(wire.CONTROL, self.voters[node], message)
        self.core.control(node.encode(), frame, self.now)
        self.flush()

    def grant(self, *nodes: str, before: int = 1) -> None:
        for node in nodes:
            self.say(node, Grant(self.core.candidacy.epoch, before))

    def hears(self, node: str, message: Any) -> None:
        self.asked.setdefault(node, []).append(message)

    # ---- time --------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float, pulses: int = 0) -> None:
        """`pulses`: in this epoch the active goes on meanwhile."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(until, self.now + TICK_S)
            if pulses:
                self.goes_on(pulses)
            self.core.tick(self.now)
            self.flush()

    def flush(self) -> None:
        """Carries out what it wants done; what it records is durable at once."""
        out = self.core.out
        while out:
            effects, out.role = out.role, []
            for effect in effects:
                self._effect(effect)
            for number, _ in out.records:
                self.core.recorded(number, self.now)
            out.records.clear()
            control, out.control = out.control, []
            for route, frame in control:
                head = wire.parse_head(frame)
                if head.kind == wire.WELCOME:
                    self.voters[route.decode()] = head.token
                elif head.kind == wire.CONTROL:
                    self.hears(route.decode(), messages.decode(frame[head.head_len :]))
            out.frontend.clear()
            out.backend.clear()

    def _effect(self, effect: Any) -> None:
        self.effects.append(effect)
        if isinstance(effect, Rise) and not effect.by:
            self.core.raised(self.now)
        elif isinstance(effect, SayPeer):
            head = wire.parse_head(effect.frame)
            if head.kind != wire.BYE:
                self.said.append(messages.decode(effect.frame[head.head_len :]))

    # ---- what came of it ---------------------------------------------------------------------------------------------

    def of(self, kind: type) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def told(self, kind: type) -> list[Any]:
        """To the active."""
        return [message for message in self.said if isinstance(message, kind)]

    @property
    def stage(self) -> Stage:
        return self.core.candidacy.stage


def sections(standby: StandbySettings) -> Sections:
    def no_service(name: str) -> ServiceSettings:
        raise AssertionError("a standby runs none")

    return Sections(MasterSettings(state="/nowhere"), no_service, standby)
