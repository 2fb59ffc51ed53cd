"""What must hold of a pair, beside what holds of every cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from rota.common import errors, messages
from rota.common.lifecycle import Intent, Liveness
from rota.common.settings import ANY
from rota.master.core.leases import blocking
from rota.master.core.master import Master
from rota.master.core.records import Restored
from rota.master.core.registry import AGENT
from rota.worker.core.deliveries import Delivery

from ..checks import Checks
from ..network import Violation

if TYPE_CHECKING:
    from ..client_part import SimCall
    from ..process_part import ProcessPart
    from .cluster import PairCluster
    from .master_part import PairMaster

POLLED_S = 2.5  # a poll lasts a lease, its answers are under way for less than another one


class Leasing(NamedTuple):
    """What a node has leased without a gap, and which masters it then had an undisturbed network to."""

    master: str
    since: float
    until: float
    near: frozenset[str]


class PairChecks(Checks):
    """With quorum "any" only what that promises: no page runs what is below its fence, each call ends once."""

    cluster: PairCluster

    def __init__(self, cluster: PairCluster) -> None:
        super().__init__(cluster)
        self.weak = cluster.quorum == ANY
        self.winners: dict[int, str] = {}  # epoch → the master that was active in it
        self.begun = 0  # the highest of them that no node has forgotten
        self.fences: dict[str, int] = {}  # node → the highest epoch that it has granted
        self._forgotten: dict[str, tuple[int, float]] = {}  # the same, of an earlier life, and when that ended
        self._revived = False  # a master dispatched whose successor was forgotten
        self._voted: set[tuple[str, int]] = set()  # node, epoch
        self._leasing: dict[str, Leasing] = {}
        self.maybe: Counter[str] = Counter()  # calls that ended as MaybeExecuted: had they run?
        self._asked: dict[str, int] = {}  # what operators asked for last, by what it is about: "node n1", "service s"
        self._held: dict[str, tuple[int, object, frozenset[str]]] = {}  # what was acknowledged: by whom it is known

    # ---- who may dispatch --------------------------------------------------------------------------------------------

    def became_active(self, master: PairMaster, known: Restored, granted: Mapping[str, float]) -> None:
        epoch, now = master.core.dispatch.epoch, self.cluster.clock.now
        for node in granted:
            if (node, epoch) not in self._voted:
                raise Violation(f"{master.name} counts a vote of {node} for epoch {epoch} that was never given")
        if self.winners:
            last = self.winners[max(self.winners)]
            self.cluster.counts["takeovers" if last != master.name else "returns of the same master"] += 1
        if not self.weak:
            if epoch in self.winners:
                raise Violation(f"{master.name} is active in epoch {epoch}, as {self.winners[epoch]} was")
            for other in self.cluster.masters.values():
                if other is not master and other.may_dispatch(now) and master.may_dispatch(now):
                    left_ms = 1000 * (other.core.pair.until() - now)
                    raise Violation(f"{master.name} is active, and {other.name} may dispatch for {left_ms:.0f} ms")
        self.winners[epoch] = master.name
        self.begun = max(self.begun, epoch)
        self._intents_hold(master.name, known)

    def stepped_down(self, master: PairMaster) -> None:
        self.cluster.counts["steps down"] += 1

    def granted(self, node: str, vote: messages.Vote) -> None:
        self.cluster.counts["votes"] += 1
        self._voted.add((node, vote.epoch))
        self._leasing.pop(node, None)
        self.fences[node] = max(self.fences.get(node, 0), vote.epoch)

    def leases(self, node: str, master: str, lasts_s: float) -> None:
        now, before = self.cluster.clock.now, self._leasing.get(node)
        if before is not None and before.master == master and now < before.until:
            self._leasing[node] = before._replace(until=now + lasts_s)
            return
        near = {name for name in self.cluster.masters if self.cluster.path(node, name).heals_at() <= now}
        self._leasing[node] = Leasing(master, now, now + lasts_s, frozenset(near))

    def stands(self, master: PairMaster) -> None:
        """Its epoch becomes durable. Where nobody has handed over a majority must just have said that it would vote."""
        electorate = master.core.mirror.known.electorate
        if self.weak or not electorate or master.core.liveness is Liveness.CLOSED:
            return
        against = {node for node in electorate if self._is_against(node, master)}
        if len(against) >= blocking(len(electorate)):
            raise Violation(f"{master.name} stands, though {', '.join(sorted(against))} would not have voted for it")

    def _is_against(self, node: str, candidate: PairMaster) -> bool:
        """For so long that each answer to a poll which it does not deny has been forgotten."""
        agent, leasing, now = self.cluster.agents.get(node), self._leasing.get(node), self.cluster.clock.now
        lease = agent.core.votes.lease if agent is not None and agent.alive else None
        if lease is None or leasing is None or lease.until <= now or lease.master == candidate.name:
            return False
        undisturbed = candidate.name in leasing.near and candidate.paused_until <= leasing.since
        return undisturbed and lease.master == leasing.master and now - leasing.since > POLLED_S

    def forgets(self, node: str) -> None:
        """An agent without a state directory is started anew: if it voted, that binds it no more, and it may elect a
        master that has not heard of the last one (docs/STANDBY.md). Never may both dispatch at one instant.
        """
        fence = self.fences.pop(node, 0)
        if fence:
            self.begun = 0
            self._forgotten[node] = fence, self.cluster.clock.now

    def _given(self, master: Any, slot: Any, now: float) -> None:
        super()._given(master, slot, now)
        if self.weak:
            return
        epoch = master.core.dispatch.epoch
        if not master.core.pair.until() > now:
            raise Violation(f"{master.name} dispatches and has neither promise nor leases")
        if self.winners.get(epoch) != master.name:
            raise Violation(f"{master.name} dispatches in epoch {epoch}, which is that of {self.winners.get(epoch)}")
        if self.begun > epoch:
            raise Violation(f"{master.name} dispatches in epoch {epoch}, and {self.begun} has begun")
        self._revived = self._revived or epoch < max(self.winners)

    def after_step(self, master: Any) -> None:
        now = self.cluster.clock.now
        if isinstance(master.core, Master):
            super().after_step(master)
        may = [each for each in self.cluster.masters.values() if each.may_dispatch(now)]
        if len(may) > 1 and not self.weak and not self._is_forgotten_by_half(may):
            raise Violation("both masters may dispatch")

    def _is_forgotten_by_half(self, may: list[PairMaster]) -> bool:
        """Where half of the nodes suffice for a lease each master may have one half, if one has forgotten its vote. It
        leases when what its earlier life leased has run out.
        """
        old, new = sorted((each.core for each in may), key=lambda core: core.dispatch.epoch)
        leases, by = old.pair.leases, self.cluster.clock.now - old.pair.leases.lease_s
        forgotten = [self._forgotten.get(node, (0, inf)) for node in leases.electorate]
        forgot = any(epoch >= new.dispatch.epoch and at <= by for epoch, at in forgotten)
        return forgot and len(leases.electorate) % 2 == 0

    # ---- what runs ---------------------------------------------------------------------------------------------------

    def executed(self, payload: int, delivery: Delivery, process: ProcessPart) -> None:
        fence = self.fences.get(process.agent.node, 0)
        if delivery.epoch < fence:
            raise Violation(f"{process.incarnation} runs epoch {delivery.epoch}, its agent has granted {fence}")
        super().executed(payload, delivery, process)

    def _may_run_again(self, call: SimCall, epoch: int) -> bool:
        return self.weak or self._revived or super()._may_run_again(call, epoch)

    def answered(self, call: SimCall, code: int, text: str) -> None:
        if code == errors.MaybeExecuted.code:
            self.maybe["ran" if self.runs[call.payload] else "never ran"] += 1
        super().answered(call, code, text)

    # ---- what operators want -----------------------------------------------------------------------------------------

    def asks(self, about: str) -> int:
        """A number for what is asked now: only the last one counts."""
        self._asked[about] = self._asked.get(about, 0) + 1
        return self._asked[about]

    def acknowledged(self, about: str, number: int, value: object, master: PairMaster) -> None:
        """It holds at this master, and at the other one if that was not given up."""
        pair = master.core.pair
        known = {master.name}
        if pair.standby is not None and pair.standby.liveness is Liveness.LIVE:
            known.add(pair.standby.peer.name)
        self._held[about] = number, value, frozenset(known)

    def forget_intents(self) -> None:
        """Others are asked for now."""
        self._held.clear()

    def _intents_hold(self, master: str, known: Restored) -> None:
        for about, (number, value, by) in list(self._held.items()):
            if master not in by:
                del self._held[about]  # it was said to be known to the other one alone
            elif self._asked[about] == number and not _holds(about, value, known):
                raise Violation(f"{master} took over and does not know what was acknowledged: {about} {value}")


def _holds(about: str, value: object, known: Restored) -> bool:
    kind, _, name = about.partition(" ")
    if kind == "service":
        return known.targets.get(name) == value
    node = known.nodes.get(name)
    if node is None:
        return value == "rejoin"
    return node.by == AGENT or (node.intent is Intent.ACTIVE) == (value == "rejoin")
