"""A standby where an engine decides who is active: it stands when nobody has the lease, and first it has the lease.

standby ──► raising (its epoch, durably) ──► the lease ──► candidate (the agents fence) ──► won
   ▲                                           │               │
   └────────── somebody else has it, or it ran out ────────────┘
"""

from __future__ import annotations

from math import inf
from typing import Any

from ...common.lifecycle import Liveness
from ...common.messages import Closing, Deny, Grant, Pulse
from ...common.settings import PRIMARY
from .beginning import Identity, Past, Sections, Sources
from .candidacy import Candidacy, Stage
from .engine_lease import Answer, EngineLease
from .standby import Standby

TURN_S = 0.1  # a backup lets the primary go first, and waits at random up to so long
# Of the lease: an active one that was heard this lately tries to renew it each tenth, and goes first when it can again.
HEARD = 0.25
STALE_S = 2.0  # one that did not hear the active lately lets those go first that did
HANDOVER_S = 1.0  # so long after a CLOSE the lease is looked for at each turn


class Fences(Candidacy):
    """A vote is a fence here, not a lease. `leased`: nodes with a lease that runs for the active master of a pair,
    which has not heard yet that an engine decides; no time limit ends the wait for these.
    """

    def __init__(self, name: str, seen: int, odd: bool) -> None:
        super().__init__(name, 0.0, seen, odd)
        self.leased: set[str] = set()

    def answered(self, node: str, answer: Grant | Deny, random: float, now: float) -> None:
        super().answered(node, answer, random, now)
        self.leased.discard(node)
        if isinstance(answer, Deny) and answer.wait_ms:
            self.leased.add(node)


class EngineStandby(Standby):
    """`lease`: of this process; it outlives changes of role."""

    candidacy: Fences

    def __init__(
        self, identity: Identity, settings: Sections, past: Past, sources: Sources, lease: EngineLease, now: float
    ) -> None:
        self.lease = lease
        self._dialled = ""
        super().__init__(identity, settings, past, sources, now)
        self._goodbye: Closing | None = None  # of the active, until it is heard again
        self._closed_at = -inf
        self._turn_at = inf
        self._fence_by = inf  # we have the lease; agents that have not answered by then are fenced by their HELLO

    def _new_candidacy(self, seen: int) -> Fences:
        return Fences(self.name, seen, odd=self.role == PRIMARY)

    @property
    def decider(self) -> str:
        return self.lease.engine

    @property
    def unable(self) -> str:
        lease = self.lease
        return f"the lease cannot be looked at: {lease.engine}: {lease.error}" if lease.error else ""

    # ---- the link to the active master -----------------------------------------------------------------------------

    def _addresses(self) -> list[str]:
        members = [peer.address for name, peer in self.mirror.known.members.items() if name != self.name]
        before = [self.mirror.known.peer.address] if self.mirror.known.peer else []
        found = dict.fromkeys([*(self.settings.backup_of or ()), *before, *members])
        return [address for address in found if address != self.identity.address]

    @property
    def peer_address(self) -> str:
        addresses = self._addresses()
        if self._dialled not in addresses and addresses:
            self._dialled = addresses[0]
        return self._dialled

    def _try_next(self) -> None:
        addresses = self._addresses()
        if self._dialled in addresses:
            self._dialled = addresses[(addresses.index(self._dialled) + 1) % len(addresses)]

    def _pulse(self, pulse: Pulse, now: float) -> None:
        """It may well be heard while its lease is over: the engine decides, not whether it is heard. Nobody has the
        lease yet in RAISING, perhaps for long: where nothing can be written.
        """
        if self.candidacy.stage in (Stage.FOLLOWING, Stage.RAISING) and pulse.epoch >= self.epoch:
            self._goodbye = None
            if self.candidacy.stage is Stage.FOLLOWING:
                self.candidacy.withdraw()
            self._heard(pulse, now)

    def _closed(self, closing: Closing, now: float) -> None:
        self._whole_until = inf  # this was its last word
        self._goodbye, self._closed_at = closing, now

    @property
    def _is_handed_over(self) -> bool:
        return self._goodbye is not None and self._goodbye.handover

    # ---- standing --------------------------------------------------------------------------------------------------

    def _why_stand(self, now: float) -> str:
        """Empty as long as it is not our turn."""
        self.candidacy.saw(self.lease.known_epoch)
        why = self._why_free(now) if self.lease.is_free(now) and not self.stopping else ""
        if not why:
            self._turn_at = inf
            return ""
        self._turn_at = min(self._turn_at, now + self._turn(now))
        return why if now >= self._turn_at else ""

    def _why_free(self, now: float) -> str:
        """The lease is free. Why it should be ours."""
        if self._forced:
            return "an operator asked for it"
        if self.liveness is Liveness.CLOSED:
            return f"{self._active} hands over" if self._is_handed_over and self.mirror.synced else ""
        if self.mirror.synced:
            return f"the lease of {self.lease.holder or self._active} is over"
        # After a start. Who was active last, as the engine has it, knows everything; then the primary.
        was_last = self._was_active and self.lease.known_epoch <= self.epoch
        if not was_last and self.role != PRIMARY:
            return ""
        if not self._addresses():
            return "no other master is known"
        if now < self._promised_until:  # it may be we who have just handed over
            return ""
        return "it was active last" if was_last else self._why_first(now)

    def _turn(self, now: float) -> float:
        if self.liveness is Liveness.UNKNOWN or self._forced:
            return 0.0
        late = 0.0 if self._is_complete(now) else STALE_S
        if now - self._heard_at < HEARD * self.lease.lease_s:
            late += HEARD * self.lease.lease_s
        if self._goodbye is not None:
            is_first = self._goodbye.to in ("", self.name)
            return 0.0 if is_first else TURN_S * (1 + self._sources.random())
        return late + (0.0 if self.role == PRIMARY else TURN_S * self._sources.random())

    def _counts(self, node: str) -> bool:
        """Every node that is here is fenced."""
        return True

    def raised(self, now: float) -> None:
        """Now the lease."""
        if self.candidacy.stage is Stage.RAISING:
            self.lease.take(self.candidacy.epoch, now)

    def engine_answered(self, answer: Answer, now: float) -> None:
        self.lease.answered(answer, now)
        self._go_on(now)

    def _tick_candidacy(self, now: float) -> None:
        if self._is_handed_over and now - self._closed_at < HANDOVER_S and not self.lease.is_free(now):
            self.lease.look(now)
        self.lease.tick(now)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        stage = self.candidacy.stage
        if stage is Stage.RAISING and self.lease.until > now:
            self.candidacy.raised(now)
            self._fence_by = now + self.settings.takeover_after
        elif stage is Stage.RAISING and self.lease.is_lost(now):
            self._give_up(now, f"{self.lease.holder or 'another master'} has the lease")
        elif stage is Stage.CANDIDATE and self.lease.until <= now:
            self._give_up(now, "the lease ran out before the nodes were fenced")
        elif stage is Stage.FOLLOWING and self.lease.epoch:  # a node knows a higher epoch
            self.lease.let_go(now)
        super()._tick_candidacy(now)
        self._count(now)

    def _give_up(self, now: float, why: str) -> None:
        self.events.tell("withdrawn", self.name, why)
        self.candidacy.withdraw()
        self.lease.let_go(now)

    def _count(self, now: float) -> None:
        """Every node that is connected has fenced its processes, or had time enough to."""
        candidacy = self.candidacy
        if candidacy.stage is not Stage.CANDIDATE or self.lease.until <= now:
            return
        nodes = self._voters.nodes
        missing = nodes - candidacy.granted.keys()
        if missing and (now < self._fence_by or missing & candidacy.leased):
            return
        self._become_active(f"{len(candidacy.granted)} of {len(nodes)} nodes are fenced", {}, now)

    def _is_complete(self, now: float) -> bool:
        """Also who was active last, and is started again before anybody else was."""
        was_last = self._was_active and not self.mirror.synced and self.candidacy.foreign <= self.epoch
        return was_last or super()._is_complete(now)

    # ---- for people ------------------------------------------------------------------------------------------------

    def status(self, now: float) -> dict[str, Any]:
        found = super().status(now)
        found["master"]["lease"] = self.lease.status(now)
        found["master"]["peer"]["promise_ms"] = None
        if self.unable:
            found["master"]["alarms"].append(self.unable)
        return found
