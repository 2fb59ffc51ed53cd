"""The standby of a pair: it promises not to stand, stands when it may, and is active with the votes of most nodes.

standby ──► polling ──► raising (its epoch, durably) ──► candidate ──► won
   ▲           │                                             │
   └───────────┴──── the active is heard, or lost ───────────┘
"""

from __future__ import annotations

from math import inf
from typing import Any

from ...common.lifecycle import Liveness
from ...common.messages import Closing, Pulse, Welcome
from ...common.settings import AGENTS, ANY, BACKUP, PRIMARY
from .candidacy import Candidacy, Stage
from .leases import majority
from .standby import Standby


class PairStandby(Standby):
    decider = AGENTS

    def _new_candidacy(self, seen: int) -> Candidacy:
        return Candidacy(self.name, self.settings.takeover_after, seen, odd=self.role == PRIMARY)

    @property
    def peer_address(self) -> str:
        peer = self.mirror.known.peer
        return peer.address if peer else next(iter(self.settings.backup_of or ()), "")

    def _try_next(self) -> None:
        """There is only one."""

    def _welcomed(self, welcome: Welcome, token: int, now: float) -> None:
        super()._welcomed(welcome, token, now)
        if self._idle_peer and self.role == BACKUP and not self.candidacy.seen:
            self._alarm("no primary", self._why_no_primary())

    def _why_no_primary(self) -> str:
        if self.peer_address == self.identity.address:
            return f"{self.name} is to stand by for itself: --backup-of is for the address of the other master"
        return (
            f"no master is active: the one at {self.peer_address} is the backup of another one, as {self.name} is; "
            f"start the primary without --backup-of"
        )

    # ---- what the active says --------------------------------------------------------------------------------------

    def _pulse(self, pulse: Pulse, now: float) -> None:
        """The active is there: whoever stands gives that up, and promises then."""
        if pulse.epoch < self.epoch or self.candidacy.stage is Stage.WON:
            return
        if self.candidacy.stage is not Stage.FOLLOWING:
            self.events.tell("withdrawn", self.name, f"{self._active} is heard again")
        self.alarms.pop("no primary", None)
        self.candidacy.withdraw()
        self._heard(pulse, now)

    def _closed(self, closing: Closing, now: float) -> None:
        self._whole_until = -inf
        if closing.handover and self.mirror.synced and not self._lacks_records and not self.stopping:
            self._whole_until = inf  # this was its last word
            self._promised_until = now  # it dispatches nothing any more: nobody relies on our promise
            self.events.tell("candidate", self.name, f"{self._active} hands over")
            self._rise()

    # ---- standing --------------------------------------------------------------------------------------------------

    def _tick_candidacy(self, now: float) -> None:
        if self.candidacy.is_over(now) and self._polls:
            self._begin(now)
        super()._tick_candidacy(now)

    def _why_stand(self, now: float) -> str:
        if self.stopping or now < self._promised_until:
            return ""
        if self.liveness is Liveness.DEAD:
            silent = f"{self._active} is dead: silent for {now - self._heard_at:.1f} s"
            return silent if self.mirror.synced and self._is_elected else ""
        if self.liveness is Liveness.UNKNOWN and (self._was_active or self.role == PRIMARY):
            return self._why_first(now) if self._idle_peer or self._is_elected else ""
        return ""

    def _begin(self, now: float) -> None:
        """Where somebody votes it asks first who would vote for it."""
        if self._polls:
            self.candidacy.poll(now)
            self._ask(now)
        else:
            self._rise()

    def raised(self, now: float) -> None:
        self.candidacy.raised(now)
        self._ask(now)
        self._count(now)

    def _count(self, now: float) -> None:
        candidacy, known = self.candidacy, self.mirror.known
        if not candidacy.asks or not self._has_won():
            return
        if candidacy.stage is Stage.POLLING:
            return self._rise()
        if self._is_left and not self._is_elected:
            known.peer = None  # this one is alone
        votes = f"{len(candidacy.granted)} of {len(known.electorate)} nodes have granted it"
        self._become_active(votes, dict(candidacy.granted), now)

    def _has_won(self) -> bool:
        if self._polls:
            known = self.mirror.known
            return self.candidacy.has_won(known.electorate, known.electorate_before or frozenset())
        return self._is_elected or self._idle_peer or self.liveness is Liveness.CLOSED or self._is_left

    @property
    def _is_left(self) -> bool:
        """The active is gone for good, as an operator says."""
        return self._forced and self.epoch > 0

    # ---- for people ------------------------------------------------------------------------------------------------

    def status(self, now: float) -> dict[str, Any]:
        found = super().status(now)
        if now >= self._promised_until and (why := self._why_unelectable(now)):
            found["master"]["alarms"].append(why)
        return found

    def _why_unelectable(self, now: float) -> str:
        """Too few of those that vote are here, or can, which only people can change."""
        known, heard, unable = self.mirror.known, self._voters.heard(now), self.candidacy.unable
        for electorate in (known.electorate, known.electorate_before or frozenset()) if self._polls else ():
            size, needed, away = len(electorate), majority(len(electorate)), sorted(electorate - heard)
            if (here := size - len(away)) < needed and size:
                return (
                    f"no master can be elected: of {size} nodes that vote {here} are connected to {self.name}, and "
                    f"{needed} are needed: start {needed - here} of {', '.join(away)} again, with both masters' "
                    f"addresses (-m); for one that is gone for good `rota witness --name {away[0]} -m …` votes in its "
                    "place; then `rota forget` the others"
                )
            if size and here - len(cannot := sorted(electorate & heard & unable.keys())) < needed:
                return (
                    f"no master can be elected: {needed} of {size} nodes are to vote for it, and of {here} that are "
                    f"connected to {self.name} {len(cannot)} cannot: "
                    + "; ".join(f"{node}: {unable[node]}" for node in cannot)
                )
        return ""

    # ---- who votes -------------------------------------------------------------------------------------------------

    @property
    def _has_voters(self) -> bool:
        return bool(self.mirror.known.electorate or self.mirror.known.electorate_before)

    @property
    def _is_elected(self) -> bool:
        """Without any node that votes nobody can win against another master: that has to give way."""
        return self._has_voters or self.settings.quorum == ANY

    @property
    def _polls(self) -> bool:
        """True when there is somebody to be asked."""
        return self._has_voters and self.settings.quorum != ANY

    def _counts(self, node: str) -> bool:
        known = self.mirror.known
        return node in known.electorate or node in (known.electorate_before or ()) or not self._is_elected

    def _is_complete(self, now: float) -> bool:
        """Never where no vote could tell of a master of whom we have heard nothing."""
        return (self.liveness is not Liveness.UNKNOWN or self._is_elected) and super()._is_complete(now)
