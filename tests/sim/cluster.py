"""A whole cluster in one thread: master, agents, processes and clients as their real cores. Faults come from outside
(`faults.py`), what must hold is in `checks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from rota.common import messages
from rota.common.lifecycle import Health, Intent
from rota.common.settings import MasterSettings, ServiceSettings
from rota.master.core.pool import Pool
from rota.worker.page import Page

from .agent_part import AgentPart
from .checks import Checks
from .client_part import ClientPart, SimCall
from .master_part import Journal, MasterPart
from .network import Clock, Connection, Path, Router, Violation
from .process_part import HANDLERS, KEYED, ProcessPart
from .streamed import SimStreamCall

__all__ = ["Cluster", "Violation"]

SETTLE_S = 40.0  # longer than any state may last without its deadline
LOOK_S = 0.2  # between two looks whether all is settled
AGAIN_S = 3.0  # an operator who wants every node back says it again after this
MUCH_CREDIT = 8  # with it processes are given bursts, for which handlers take too long here


class Cluster:
    """`steady`: nothing is left to chance, for transcripts that stay as they are. `forget_s`: so long silent clients
    are remembered, and answers to calls with a key.
    """

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        clients: int = 2,
        journal: bool = True,
        concurrency: int = 1,
        credit: int | None = None,
        steady: bool = False,
        forget_s: float = MasterSettings().session_idle,
    ) -> None:
        self.seed = seed
        self.steady = steady
        self.clock = Clock(seed)
        self.rng = self.clock.rng
        self.concurrency = concurrency
        self.burst = 3 if credit == MUCH_CREDIT else 1
        self.wall_offset = 0.0
        self.checks = self.new_checks()
        self.connections: list[Connection] = []
        self.paths: dict[str, Path] = {}  # by machine: nodes and clients
        self.remembered: dict[str, tuple[messages.Intent, int]] = {}  # what agents wrote to their disks
        self.settings = replace(MasterSettings(), state="/nowhere" if journal else None, drain_deadline=3.0)
        self.settings = replace(self.settings, session_idle=forget_s)
        self.services = replace(ServiceSettings(), credit=credit, ramp=0.5, queue_timeout=2.0, queue_limit=200)
        self.services = replace(self.services, keys_for=forget_s)
        self._journal = Journal() if journal else None
        self._pages: dict[Page, None] = {}
        self._pids = self._calls = self._boots = 0
        self.start_master()
        self.agents: dict[str, AgentPart] = {}
        self.removed: set[str] = set()  # nodes that are gone for good
        for index in range(nodes):
            self.start_agent(f"n{index}", remembers=False)
        self.clients = [self.new_client(f"client {index}") for index in range(clients)]

    def close(self) -> None:
        """Lets go of the pages, which are files."""
        for page in list(self._pages):
            self.drop_page(page)

    def allow_bursts(self, pools: Iterable[Pool]) -> None:
        """After each tick, which makes bursts as long as service times allow."""
        for pool in pools:
            pool.shelf.burst = self.burst

    # ---- what parts need ---------------------------------------------------------------------------------------------

    def chance(self) -> float:
        return 0.5 if self.steady else self.rng.random()

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.chance()

    def path(self, machine: str) -> Path:
        return self.paths.setdefault(machine, Path())

    def connect(
        self,
        port: str,
        machine: str,
        on_frame: Callable[[bytes], None],
        on_change: Callable[[], None],
        master: int = 0,
    ) -> Connection:
        """`master`: index of its address, where there are several."""
        return self.open(getattr(self.master, port), self.path(machine), on_frame, on_change)

    def open(
        self, router: Router, path: Path, on_frame: Callable[[bytes], None], on_change: Callable[[], None]
    ) -> Connection:
        number = len(self.connections) + 1
        connection = Connection(self.clock, router, path, number, self.steady, on_frame, on_change)
        self.connections.append(connection)
        return connection

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def new_boot(self) -> str:
        self._boots += 1
        return f"boot{self._boots:02}" if self.steady else f"{self.rng.getrandbits(24):06x}"

    def new_page(self) -> Page:
        page = Page.create()
        self._pages[page] = None
        return page

    def drop_page(self, page: Page) -> None:
        if page in self._pages:
            del self._pages[page]
            page.close()

    def start_master(self) -> None:
        self.master = MasterPart(self, self.settings, self.services, self._journal)

    def start_agent(self, name: str, remembers: bool) -> None:
        """`remembers`: it has its state directory."""
        intent, epoch = self.remembered.get(name, (None, 0)) if remembers else (None, 0)
        self.agents[name] = AgentPart(self, name, intent, epoch)

    def new_checks(self) -> Checks:
        return Checks(self)

    def new_client(self, name: str) -> ClientPart:
        return ClientPart(self, name)

    # ---- what happens ------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)

    def run_until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        end = self.clock.now + seconds
        self.clock.run(end, lambda: bool(condition()))
        if not condition():
            raise Violation(f"not so within {seconds} s")

    def ready(self) -> bool:
        """All that the nodes offer is up."""
        slots = self.master.core.fleet.processes.slots
        offered = sum(agent.core.processes.capacity for agent in self.agents.values())
        return len(slots) == offered and all(slot.open for slot in slots.values())

    def call(self, handler: str | None = None, timeout: float = 6.0, client: int | None = None) -> SimCall:
        self._calls += 1
        if handler is None:
            handler = self.rng.choices(list(HANDLERS), [each.weight for each in HANDLERS.values()])[0]
        chosen = self.clients[self.rng.randrange(len(self.clients)) if client is None else client]
        has_key = handler in KEYED and self.rng.random() < 0.6
        repeats = self._to_repeat(handler) if has_key else None
        kind = SimStreamCall if HANDLERS[handler].streams else SimCall
        call = kind(self._calls, handler, self.clock.now + timeout, self, chosen, has_key, repeats)
        self.checks.called(call)
        again = f" again as {call.id}" if repeats else ""
        self.clock.tell("%s: call %d (%s)%s, %s s", chosen.name, call.payload, handler, again, timeout)
        chosen.call(call)
        return call

    def _to_repeat(self, handler: str) -> SimCall | None:
        """A late one of the same key, now and then."""
        if self.rng.random() < 0.6:
            return None
        made = [call for call in self.checks.calls.values() if call.handler == handler and call.has_key]
        return self.rng.choice(made[-5:]) if made else None

    def processes(self) -> list[ProcessPart]:
        return [process for agent in self.agents.values() for process in agent.processes.values() if process.alive]

    def cores(self) -> list[object]:
        """Of all parts that are there, what remembers."""
        processes = [core for each in self.processes() for core in (each.deliveries, each.streams)]
        return [self.master.core, *(agent.core for agent in self.agents.values()), *processes]

    # ---- the end -----------------------------------------------------------------------------------------------------

    def settle(self, quiet_s: float = 0.5) -> None:
        """No more faults: those that are under way end, every node is rejoined, and then nothing may stay open.

        Whatever is in a state that has no deadline is found here: it would be in it still.
        """
        self._settle("after the faults")
        last = [self.call(handler, 3.0, place) for handler in ("plain", "again") for place in range(len(self.clients))]
        self._settle("after the last calls")
        if any(call.code for call in last):
            raise Violation(f"in peace, calls get {[call.code for call in last]}")
        self.run(quiet_s)
        self._settle("in the end")  # a replacement may have begun meanwhile
        self.checks.complete(self.master)

    def _settle(self, when: str) -> None:
        until, again_at = self.clock.now + SETTLE_S, 0.0
        while (problem := self._problem()) is not None:
            now = self.clock.now
            if now > until:
                raise Violation(f"{when} and {SETTLE_S:g} s of peace: {problem}")
            if now >= again_at and self.master.alive and now >= self.master.paused_until:
                again_at = now + AGAIN_S
                self._want_all()
            self.run(LOOK_S)

    def _problem(self) -> str | None:
        if not self.master.alive:
            return "the master is down"
        if self.clock.now < self._peace_at():
            return "faults are under way"
        down = [name for name, agent in self.agents.items() if not agent.alive]
        return f"{down} are down" if down else self.checks.problem(self.master)

    def _peace_at(self) -> float:
        parts = [self.master, *self.clients, *self.agents.values(), *self.processes()]
        return max(*(part.paused_until for part in parts), *(path.heals_at() for path in self.paths.values()))

    def _want_all(self) -> None:
        """The operator wants every node, and its processes at once (recheck clears the agent's back-off)."""
        fleet, offered = self.master.core.fleet, sum(agent.core.processes.capacity for agent in self.agents.values())
        if fleet.scaled.get("s", offered) != offered:
            self.master.verb("scale", service="s", processes=offered)
        for node in list(fleet.nodes.values()):
            if node.intent is not Intent.ACTIVE:
                self.master.verb("rejoin", nodes=[node.name])
            if node.health in (Health.BLACKLISTED, Health.TRIAL):
                self.master.verb("blacklist", action="clear", names=[node.name])
            if len(node.slots) < node.capacity:
                self.master.verb("recheck", nodes=[node.name])
