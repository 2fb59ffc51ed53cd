"""What must hold after every step of a cluster, and at the end of every history."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rota.common import errors
from rota.common.lifecycle import Intent
from rota.master.core.dispatch import Dispatch
from rota.master.core.master import Master
from rota.master.core.pool import Pool, Slot, Stage
from rota.master.core.registry import active_nodes

from .network import Violation

if TYPE_CHECKING:
    from .cluster import Cluster
    from .parts import MasterPart, ProcessPart, SimCall

# A caller who gets one of these may send again without a thought: it must not have run, nor run later.
NOT_RUN = (
    errors.Overloaded.code,
    errors.NoService.code,
    errors.NotExecuted.code,
    errors.Unavailable.code,
    errors.PayloadTooLarge.code,
)


class Checks:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.calls: dict[int, SimCall] = {}
        self.runs: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()  # by code
        self.steps = 0

    # ---- what the world saw ------------------------------------------------------------------------------------------

    def executed(self, call_id: int, handler: str, process: ProcessPart) -> None:
        call = self.calls[call_id]
        self.runs[call_id] += 1
        self.cluster.clock.tell("%s: runs call %d (%s)", process.incarnation, call_id, handler)
        again = handler == "again" or (handler == "keyed" and call.key)
        if self.runs[call_id] > 1 and not again:
            raise Violation(f"call {call_id} ({handler}) was executed twice")
        if call.code in NOT_RUN:
            raise Violation(f"call {call_id} is executed after its caller was told {call.code}: not run")

    def answered(self, call: SimCall, code: int, text: str) -> None:
        self.cluster.clock.tell("client: call %d (%s) gets %d %s", call.id, call.handler, code, text)
        self.answers[code] += 1
        if code in NOT_RUN and self.runs[call.id]:
            raise Violation(f"call {call.id} was executed, and its caller was told {code}: {text}")
        if code == 0 and not self.runs[call.id]:
            raise Violation(f"call {call.id} was answered without having been executed")

    # ---- what the master holds ---------------------------------------------------------------------------------------

    def watch(self, dispatch: Dispatch) -> None:
        """No slot is given anything that is not open, or beyond its credit."""
        deliver = dispatch._deliver

        def checked(slot: Slot, request: object, now: float) -> None:
            if not slot.open:
                raise Violation(f"{slot.incarnation} is given a request and is not open ({slot.stage})")
            if len(slot.inflight) >= slot.limit:
                raise Violation(f"{slot.incarnation} is given more than its credit of {slot.limit}")
            deliver(slot, request, now)  # type: ignore[arg-type]

        dispatch._deliver = checked  # type: ignore[method-assign, assignment]

    def delivered(self, master: MasterPart, slot: Slot, number: int) -> None:
        self.cluster.clock.tell("master: delivery %d → %s", number, slot.incarnation)

    def after_step(self, master: MasterPart) -> None:
        self.steps += 1
        core = master.core
        for pool in core.dispatch.pools.values():
            self._pool(pool)
        self._requests(core)
        for slot in core.fleet.slots.values():
            self._slot(core, slot)

    def _pool(self, pool: Pool) -> None:
        waiting = [request for request in pool.queue if not request.answered]
        if pool.queued != len(waiting):
            raise Violation(f"the queue has {len(waiting)} requests and counts {pool.queued}")
        if any(request.slot is not None for request in waiting):
            raise Violation("a request is queued and dispatched at once")
        first = pool.shelf.first()
        if waiting and first is not None:
            raise Violation(f"{len(waiting)} requests wait though {first.incarnation} has credit")
        for row, slots in enumerate(pool.shelf._rows):
            for slot in slots:
                if slot.row != row or not slot.open or len(slot.inflight) >= slot.limit:
                    raise Violation(f"{slot.incarnation} is on the shelf: open {slot.open}, row {slot.row}")

    def _slot(self, core: Master, slot: Slot) -> None:
        if slot.open and not (slot.connected and slot.stage is Stage.READY and slot.node.eligible()):
            raise Violation(f"{slot.incarnation} is open: {slot.stage}, connected {slot.connected}")
        if slot.open and len(slot.inflight) < slot.limit and slot.row < 0:
            raise Violation(f"{slot.incarnation} has credit and is not on the shelf")
        if slot.pool.slots.get(slot.incarnation) is not slot or slot.node.slots.get(slot.incarnation) is not slot:
            raise Violation(f"{slot.incarnation} is known to the fleet and not to its pool or node")

    def _requests(self, core: Master) -> None:
        dispatch = core.dispatch
        queued = [request for pool in dispatch.pools.values() for request in pool.queue if not request.answered]
        waiting = [*queued, *dispatch.inherited.waiting]
        if dispatch.queued_bytes != sum(len(request.frame) for request in waiting):
            raise Violation("the bytes of the queues are miscounted")
        places = Counter(map(id, queued))
        places.update(map(id, dispatch.inherited.waiting))
        for slot in core.fleet.slots.values():
            places.update(id(request) for request in slot.inflight.values())
        for session in dispatch.sessions.values():
            for number, request in session.open.items():
                if request.answered or places[id(request)] != 1:
                    raise Violation(f"request {number} is in {places[id(request)]} places, answered {request.answered}")
                if request not in dispatch.timers._at.get(request.tick, {}):
                    raise Violation(f"request {number} has no deadline")

    # ---- the budget --------------------------------------------------------------------------------------------------

    def active(self, core: Master, now: float) -> dict[str, int]:
        return {name: len(active_nodes(core.fleet.nodes, pool, now)) for name, pool in core.dispatch.pools.items()}

    def budget_kept(self, master: MasterPart, before: dict[str, int]) -> None:
        after = self.active(master.core, self.cluster.clock.now)
        for name, count in before.items():
            if after[name] < count and after[name] < 1:
                raise Violation(f"a drain left {name} with {after[name]} active nodes")

    # ---- the end -----------------------------------------------------------------------------------------------------

    def complete(self, master: MasterPart) -> None:
        """After the last fault and some quiet: nothing is silent, nothing is stuck."""
        silent = [call for call in self.calls.values() if call.code is None]
        if silent:
            raise Violation(f"{len(silent)} calls got no answer, the first is {silent[0].id} ({silent[0].handler})")
        if sum(self.answers.values()) != len(self.calls):
            raise Violation(f"{len(self.calls)} calls and {sum(self.answers.values())} answers")
        core = master.core
        for node in core.fleet.nodes.values():
            if node.intent is Intent.DRAINING:
                raise Violation(f"the drain of {node.name} does not end; {node.in_flight()} in flight")
            agent = self.cluster.agents[node.name]
            here = [process.incarnation for process in agent.processes.values() if process.alive]
            if agent.alive and sorted(here) != sorted(node.slots):
                raise Violation(f"{node.name} runs {sorted(here)}, the master knows {sorted(node.slots)}")
            if agent.alive and node.intent is Intent.ACTIVE and len(node.slots) != agent.core.capacity:
                raise Violation(f"{node.name} is active and has {len(node.slots)} of {agent.core.capacity} processes")
            if agent.alive and node.intent is Intent.DETACHED and here:
                raise Violation(f"{node.name} is detached and still runs {here}")
        for slot in core.fleet.slots.values():
            if slot.inflight or not slot.open:
                raise Violation(
                    f"{slot.incarnation} is {slot.stage}, open {slot.open}, in flight {list(slot.inflight)}"
                )
        for session in core.dispatch.sessions.values():
            if session.open:
                raise Violation(f"requests {list(session.open)} are open though every caller has its answer")
        if core.dispatch.inherited.orphans or core.dispatch.inherited.waiting:
            raise Violation("what an older master dispatched is still open")
