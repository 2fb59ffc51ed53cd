"""A cluster with two masters. Its parts are those of the other one, and these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rota.common.settings import MAJORITY, MasterSettings
from rota.worker.core.votes import Ballot

from ..client_part import SimCall
from ..cluster import AGAIN_S, Cluster
from ..network import BEGINNING, Connection, Path, Router, Violation
from .agent_part import PairAgent
from .checks import PairChecks
from .client_part import PairClient
from .master_part import PairJournal, PairMaster

if TYPE_CHECKING:
    from rota.master.core.master import Master

PRIMARY, BACKUP = "ma", "mb"
ANSWERED_AGAIN_S = 15.0  # after the last fault: longer than any pause between two attempts of any part
PROBE_S = 1.0  # a call that asks whether calls are answered


class Down:
    """A master that has not been started yet."""

    alive = False
    is_active = could_be_active = False
    paused_until = 0.0

    def __init__(self, cluster: PairCluster, name: str) -> None:
        self.name = name
        self.control, self.frontend, self.backend = (Router(cluster.clock, lambda: None) for _ in range(3))
        for router in (self.control, self.frontend, self.backend):
            router.bound = False

    def may_dispatch(self, now: float) -> bool:
        return False


class PairCluster(Cluster):
    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        clients: int = 2,
        concurrency: int = 1,
        credit: int | None = None,
        quorum: str = MAJORITY,
        handover: bool = True,
        second_s: float = 0.0,
        first: str = PRIMARY,
        forget_s: float = MasterSettings().session_idle,
    ) -> None:
        """`first`: the master that is started at once; the other one follows `second_s` later."""
        self.quorum = quorum
        self.handover = handover
        self.addresses = tuple(self.address(name) for name in (PRIMARY, BACKUP))
        self.masters: dict[str, Any] = {}
        self.ballots: dict[str, Ballot] = {}  # the vote files of the agents
        self.coming: set[str] = set()  # masters that are about to be started again
        self.counts: Counter[str] = Counter()  # of what happened, for the report
        self.answered_after = 0.0  # seconds after the last fault
        self._journals = {PRIMARY: PairJournal(), BACKUP: PairJournal()}
        self._first, self._second_s = first, second_s
        super().__init__(seed, nodes, clients, True, concurrency, credit, forget_s=forget_s)

    # ---- what parts need ---------------------------------------------------------------------------------------------

    checks: PairChecks

    def new_checks(self) -> PairChecks:
        return PairChecks(self)

    def new_client(self, name: str) -> Any:
        return PairClient(self, name)

    def start_agent(self, name: str, remembers: bool) -> None:
        intent, epoch = self.remembered.get(name, (None, 0))
        if not remembers:
            self.ballots.pop(name, None)
            self.checks.forgets(name)
            intent, epoch = None, 0
        self.agents[name] = PairAgent(self, name, intent, epoch)

    @staticmethod
    def address(name: str) -> str:
        return f"tcp://{name}:7700"

    def path(self, machine: str, master: str = PRIMARY) -> Path:
        return self.paths.setdefault(f"{machine} {master}", Path())

    def connect(
        self,
        port: str,
        machine: str,
        on_frame: Callable[[bytes], None],
        on_change: Callable[[], None],
        master: int = 0,
    ) -> Connection:
        name = (PRIMARY, BACKUP)[master]
        return self.open(getattr(self.masters[name], port), self.path(machine, name), on_frame, on_change)

    def start_master(self) -> None:
        """Both, one after the other."""
        self.masters = {name: Down(self, name) for name in (PRIMARY, BACKUP)}
        second = BACKUP if self._first == PRIMARY else PRIMARY
        self.start(self._first)
        self.start_again(second, self._second_s)

    def start_again(self, name: str, after_s: float) -> None:
        self.coming.add(name)
        self.clock.after(after_s, lambda: self.start(name))

    def start(self, name: str) -> None:
        self.coming.discard(name)
        if not self.masters[name].alive:
            self.clock.tell("%s: starts", name)
            backup_of = self.address(PRIMARY) if name == BACKUP else None
            self.masters[name] = PairMaster(self, name, backup_of, self._journals[name])

    @property
    def master(self) -> Any:
        """The one that is active, with the highest epoch of all that believe so; else any that is there."""
        masters = list(self.masters.values())
        active = [each for each in masters if each.is_active]
        if active:
            return max(active, key=lambda each: each.core.dispatch.epoch)
        return next((each for each in masters if each.alive), masters[0])

    @property
    def active(self) -> Any:
        """The same, if it can be spoken to now."""
        master = self.master
        return master if master.is_active and self.clock.now >= master.paused_until else None

    def cores(self) -> list[object]:
        return [*super().cores(), *(each.core for each in self.masters.values() if each.alive and not each.is_active)]

    # ---- the end -----------------------------------------------------------------------------------------------------

    def settle(self, quiet_s: float = 0.5) -> None:
        for master in self.masters.values():
            if master.alive:
                master._freeze_s = 0.0
        self._until_answered()
        super().settle(quiet_s)

    def _until_answered(self) -> None:
        """Clients are served again soon after the last fault, whatever it was; operators want what they want."""
        while self._faulty():
            self.run(0.1)
        began = self.clock.now
        again_at = began
        left = set(range(len(self.clients)))
        while left:
            if self.clock.now - began > ANSWERED_AGAIN_S:
                raise Violation(f"{ANSWERED_AGAIN_S:g} s after the last fault: {self._problem()}")
            if self.clock.now >= again_at:
                again_at = self.clock.now + AGAIN_S
                self._want_all()
            probes = {place: self.call("again", PROBE_S, place) for place in left}
            self._run_probes(list(probes.values()))
            left -= {place for place, probe in probes.items() if probe.code == 0}
        self.answered_after = self.clock.now - began

    def _run_probes(self, probes: list[SimCall]) -> None:
        self.clock.run(self.clock.now + PROBE_S + 0.3, lambda: all(probe.code is not None for probe in probes))
        self.run(0.05)

    def _faulty(self) -> bool:
        agents_down = any(not agent.alive for agent in self.agents.values())
        return bool(self.coming) or agents_down or self.clock.now < self._peace_at()

    def _peace_at(self) -> float:
        parts = [*self.masters.values(), *self.clients, *self.agents.values(), *self.processes()]
        heals = [path.heals_at() for path in self.paths.values()]
        return max(*(part.paused_until for part in parts), *heals, BEGINNING)

    def _problem(self) -> str | None:
        if self._faulty():
            return "faults are under way"
        believe = [each for each in self.masters.values() if each.is_active]
        if len(believe) != 1:
            return f"{len(believe)} masters are active"
        return self._pair_problem(believe[0].core) or self.checks.problem(believe[0])

    def _pair_problem(self, core: Master) -> str | None:
        if not core.pair.until() > self.clock.now:
            return "the active master may not dispatch"
        if all(each.alive for each in self.masters.values()):
            if why := core.pair.unready():
                return why
            if core.pair.leases.electorate != frozenset(self.agents):
                return f"those that vote are {sorted(core.pair.leases.electorate)}"
        return None

    def _want_all(self) -> None:
        active = self.active
        if active is None:
            alone = [each for each in self.masters.values() if each.alive]
            if len(alone) == 1:  # it may never have heard the other one since it started: its operator knows
                alone[0].verb("switchover", force=True)
            return
        self.checks.forget_intents()
        for name in self.removed & active.core.known.present:  # who said goodbye counts for nothing anyway
            active.verb("forget", nodes=[name])
        super()._want_all()
