"""A whole cluster in one thread: master, agents, processes and clients as their real cores, faults from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rota.common import messages
from rota.common.settings import MasterSettings, ServiceSettings

from .checks import Checks
from .network import Clock, Connection, Violation
from .parts import HANDLERS, AgentPart, ClientPart, Journal, MasterPart, ProcessPart, SimCall

__all__ = ["Cluster", "Violation"]


class Cluster:
    def __init__(self, seed: int, nodes: int = 3, clients: int = 2, journal: bool = True, concurrency: int = 1) -> None:
        self.seed = seed
        self.clock = Clock(seed)
        self.rng = self.clock.rng
        self.concurrency = concurrency
        self.checks = Checks(self)
        self.connections: list[Connection] = []
        self.remembered: dict[str, tuple[messages.Intent, int]] = {}
        self.settings = replace(MasterSettings(), state="/nowhere" if journal else None, drain_deadline=8.0)
        self.services = replace(ServiceSettings(), ramp=0.5, queue_timeout=4.0, queue_limit=200)
        self._journal = Journal() if journal else None
        self._pids = self._calls = 0
        self.spins: Counter[tuple[float, str]] = Counter()
        self.tamper: Callable[[MasterPart], None] = lambda master: None
        self.start_master()
        self.agents = {f"n{index}": AgentPart(self, f"n{index}", None, 0) for index in range(nodes)}
        self.clients = [ClientPart(self) for _ in range(clients)]

    # ---- what parts need ---------------------------------------------------------------------------------------------

    def connect(self, port: str, on_frame: Callable[[bytes], None]) -> Connection:
        router = getattr(self.master, port)
        connection = Connection(self.clock, router, on_frame, len(self.connections) + 1)
        self.connections.append(connection)
        return connection

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def start_master(self) -> None:
        self.master = MasterPart(self, self.settings, self.services, self._journal)
        self.checks.watch(self.master.core.dispatch)
        self.clock.tell("master: starts with epoch %d", self.master.core.dispatch.epoch)
        self.tamper(self.master)

    # ---- what happens ------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)

    def run_until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        end = self.clock.now + seconds
        self.clock.run(end, lambda: bool(condition()))
        if not condition():
            raise Violation(f"not so within {seconds} s")

    def call(self, handler: str | None = None, timeout: float = 6.0, client: int | None = None) -> SimCall:
        self._calls += 1
        handler = handler or self.rng.choices(list(HANDLERS), (8, 1, 4, 4, 0.3))[0]
        call = SimCall(self._calls, handler, self.clock.now + timeout, self, key=self.rng.random() < 0.5)
        self.checks.calls[call.id] = call
        chosen = self.clients[self.rng.randrange(len(self.clients)) if client is None else client]
        self.clock.tell("client: call %d (%s)", call.id, handler)
        chosen.call(call)
        call.client = chosen  # type: ignore[attr-defined]
        return call

    def processes(self) -> list[ProcessPart]:
        return [process for agent in self.agents.values() for process in agent.processes.values() if process.alive]

    # ---- faults ------------------------------------------------------------------------------------------------------

    def kill_process(self) -> None:
        alive = self.processes()
        if alive:
            process = self.rng.choice(alive)
            self.clock.tell("FAULT: process %s is killed", process.incarnation)
            process.die()

    def reset_connection(self) -> None:
        up = [each for each in self.connections if not each.cut and each.connected]
        if up:
            connection = self.rng.choice(up)
            self.clock.tell("FAULT: connection %s is reset", connection.route.hex())
            connection.reset()

    def reset_all(self) -> None:
        self.clock.tell("FAULT: all connections are reset")
        for connection in [each for each in self.connections if not each.cut]:
            connection.reset()

    def restart_agent(self) -> None:
        name = self.rng.choice(list(self.agents))
        agent = self.agents[name]
        self.clock.tell("FAULT: agent %s is killed", name)
        agent.kill()
        intent, epoch = self.remembered.get(name, (None, 0))
        if self.rng.random() < 0.5:
            intent, epoch = None, 0  # without a state directory

        def start() -> None:
            if not self.agents[name].alive:
                self.clock.tell("%s: starts anew", name)
                self.agents[name] = AgentPart(self, name, intent, epoch)

        self.clock.after(0.05 + self.rng.random() * 2, start)

    def stop_agent(self) -> None:
        """TERM, and systemd starts it again."""
        name = self.rng.choice(list(self.agents))
        agent = self.agents[name]
        if not agent.alive:
            return
        self.clock.tell("FAULT: agent %s gets TERM", name)
        agent.leave()

        def start() -> None:
            if self.agents[name] is not agent:
                return
            if agent.alive:
                self.clock.after(0.2, start)
            else:
                self.clock.tell("%s: starts anew", name)
                self.agents[name] = AgentPart(self, name, None, 0)

        self.clock.after(0.2, start)

    def pause_agent(self) -> None:
        name = self.rng.choice(list(self.agents))
        pause = self.rng.choice([0.5, 1.5, 5.0])
        self.clock.tell("FAULT: agent %s stands still for %s s", name, pause)
        self.agents[name].paused_until = self.clock.now + pause

    def pause_master(self) -> None:
        pause = self.rng.choice([0.3, 1.5, 5.0])
        self.clock.tell("FAULT: the master stands still for %s s", pause)
        self.master.paused_until = self.clock.now + pause

    def restart_master(self) -> None:
        self.clock.tell("FAULT: the master is killed")
        self.master.kill()
        self.clock.after(0.05 + 0.5 * self.rng.random(), lambda: None if self.master.alive else self.start_master())

    def operate(self) -> None:
        if not self.master.alive or not self.master.core.fleet.nodes:
            return
        name = self.rng.choice(list(self.master.core.fleet.nodes))
        verb = self.rng.choice(["drain", "drain", "rejoin", "rejoin", "recheck", "reload"])
        if verb == "reload":
            if "s" in self.master.core.dispatch.pools:
                self.master.verb("reload", service="s")
        elif verb == "drain":
            self.master.verb("drain", nodes=[name], force=self.rng.random() < 0.1, deadline_s=3.0)
        else:
            self.master.verb(verb, nodes=[name])

    def cancel(self) -> None:
        waiting = [call for call in self.checks.calls.values() if call.code is None]
        if waiting:
            call = self.rng.choice(waiting)
            call.client.cancel(call)  # type: ignore[attr-defined]

    # ---- the end -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """No more faults: everybody comes back, every node is rejoined, and everything is looked at."""
        self.run_until(lambda: self.master.alive and all(agent.alive for agent in self.agents.values()), 60)
        self.run(10.0)  # longer than any deadline of a drain or of a call
        if not all(agent.alive for agent in self.agents.values()):
            self.run_until(lambda: all(agent.alive for agent in self.agents.values()), 60)
        for name in list(self.master.core.fleet.nodes):
            self.master.verb("rejoin", nodes=[name])
            self.master.verb("recheck", nodes=[name])  # clears the agent's back-off
        self.run(15.0)
        last = [
            self.call(handler, client=index) for handler in ("plain", "again") for index in range(len(self.clients))
        ]
        self.run(2.0)
        self.checks.complete(self.master)
        if any(call.code for call in last):
            raise Violation(f"in peace, calls get {[call.code for call in last]}")
