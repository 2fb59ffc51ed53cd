"""What must hold at every event and after every step of a cluster, and at the end of every history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rota.client.calls import GRACE_S
from rota.common import errors
from rota.common.lifecycle import Health, Intent, Liveness
from rota.master.core.dispatch import Dispatch
from rota.master.core.fleet import Fleet
from rota.master.core.master import LONG_TICK_S, Master
from rota.master.core.pool import Pool, Request, Slot, Stage
from rota.master.core.processes import REPLY_LOST_AFTER_S
from rota.master.core.recalls import RECALL_SILENT_S
from rota.master.core.records import Restored
from rota.master.core.registry import Node, active_nodes
from rota.worker.core.deliveries import Delivery
from rota.worker.page import FENCE_EPOCH, FLOOR, STARTED_UPTO

from .network import Violation
from .process_part import REPEATABLE

if TYPE_CHECKING:
    from .client_part import SimCall
    from .cluster import Cluster
    from .master_part import MasterPart
    from .process_part import ProcessPart

# A caller who gets one of these may send again without a thought: it must not have run, nor run later.
NOT_RUN = (
    errors.Overloaded.code,
    errors.NoService.code,
    errors.NotExecuted.code,
    errors.Unavailable.code,
    errors.PayloadTooLarge.code,
    errors.Quarantined.code,
)
MAY_WORK = (Health.UP, Health.DEGRADED, Health.TRIAL)
LATE_S = 0.1  # of an answer, beyond deadline and grace
EARLY_S = 0.002  # of a Timeout, before the deadline: it is sent in whole milliseconds
NO_ANSWER = "no answer to"  # so a client begins that gives a call up by itself
TICKS_S = 3 * LONG_TICK_S  # until a silent node is noticed
TAKEN_BACK_S = RECALL_SILENT_S + 1.0  # to notice, to ask, and to hear


def _denies(call: SimCall) -> bool:
    """Its caller was told that nothing was run."""
    return call.code in NOT_RUN or call.details.get("started") is False


def _is_on_record(node: str, known: Restored) -> bool:
    """The next master will know that this node is in the pool, and is to be asked what ran there."""
    return node in known.present and known.nodes[node].intent is Intent.ACTIVE


class Checks:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.calls: dict[int, SimCall] = {}
        self.silent = 0  # calls without an answer
        self.runs: Counter[int] = Counter()  # by payload, as the next two
        self.ran_under: dict[int, tuple[int, MasterPart]] = {}  # epoch and master of the last run
        self.callers: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()  # by code
        self.steps = 0
        self._forced = False
        self._fenced: dict[Slot, int] = {}  # the HELLO behind which it said that another master's fence keeps it
        self._unbegun: dict[tuple[Slot, int], float] = {}  # deliveries that nobody begins though another could: since

    # ---- what the world saw ------------------------------------------------------------------------------------------

    def called(self, call: SimCall) -> None:
        self.calls[call.id] = call
        self.silent += 1
        self.callers[call.payload] += 1

    def executed(self, payload: int, delivery: Delivery, process: ProcessPart) -> None:
        self.cluster.clock.tell("%s: runs call %d (%s)", process.incarnation, payload, delivery.handler)
        call = self.calls[payload]
        self.runs[payload] += 1
        if self.runs[payload] > 1 and not self._may_run_again(call, delivery.epoch):
            raise Violation(f"call {payload} ({call.handler}) was executed twice")
        self.ran_under[payload] = delivery.epoch, self.cluster.master
        if _denies(call) and self.callers[payload] == 1:
            raise Violation(f"call {payload} is executed after its caller was told {call.code}: not run")
        self._page_allows(delivery, process)

    def _may_run_again(self, call: SimCall, epoch: int) -> bool:
        """Its handler says so; or its key was forgotten with an older master, and it was called again."""
        if call.handler in REPEATABLE or (call.handler == "keyed" and call.has_key):
            return True
        # Without a journal, and with agents that are all new, an epoch comes again.
        return (
            call.has_key
            and self.callers[call.payload] > 1
            and (epoch, self.cluster.master) != self.ran_under[call.payload]
        )

    def _page_allows(self, delivery: Delivery, process: ProcessPart) -> None:
        words, name = process.page.words, process.incarnation
        if words[STARTED_UPTO] < delivery.number:
            raise Violation(f"{name} runs {delivery.number}, its page says {words[STARTED_UPTO]}")
        if delivery.epoch < words[FENCE_EPOCH]:
            raise Violation(f"{name} runs a delivery of epoch {delivery.epoch}, its fence is {words[FENCE_EPOCH]}")
        if delivery.number < words[FLOOR]:
            raise Violation(f"{name} runs {delivery.number}, which was taken back (floor {words[FLOOR]})")

    def answered(self, call: SimCall, code: int, text: str) -> None:
        clock = self.cluster.clock
        clock.tell("%s: call %d (%s) gets %d %s", call.client.name, call.id, call.handler, code, text)
        self.silent -= 1
        self.answers[code] += 1
        runs = self.runs[call.payload]
        if _denies(call) and runs and self.callers[call.payload] == 1:
            raise Violation(f"call {call.id} was executed, and its caller was told {code}: {text}")
        if not runs and (
            code == 0 or any(words in text for words in ("while it ran", "after it had run", "was executed"))
        ):
            raise Violation(f"call {call.id} was not executed, and its caller was told {code}: {text}")
        late_s = clock.now - call.deadline - GRACE_S
        if late_s > LATE_S and clock.now - call.client.paused_until > LATE_S:
            raise Violation(f"call {call.id} was answered {late_s:.3f} s after its deadline and grace")
        if code == errors.Timeout.code and clock.now < call.deadline - EARLY_S:
            raise Violation(
                f"call {call.id} was told {call.deadline - clock.now:.3f} s before its deadline that it passed"
            )
        if text.startswith(NO_ANSWER) and call.client.is_left_alone(call):
            raise Violation(f"call {call.id} was answered, and its caller is not told: {text}")

    # ---- events in the master ----------------------------------------------------------------------------------------

    def watch(self, master: MasterPart) -> None:
        """Looks on at each dispatch, at each planned step, and when an exit is settled."""
        dispatch, fleet = master.core.dispatch, master.core.fleet
        self._before(dispatch, "_deliver", lambda slot, request, now: self._given(master, slot, now))
        self._before(fleet.processes, "settle", lambda slot, now: self._settled(master, slot, now))
        self._before(dispatch, "fail", lambda request, code, *why, **details: self._failed(master, request, code))
        self._before(dispatch.losses, "refused", lambda slot, *why: self._refused(slot, *why[:2], dispatch.epoch))
        self._planned(fleet.intents, "drain", master)
        self._planned(fleet.staff, "_close", master)

    def _before(self, owner: object, name: str, look: Callable[..., None]) -> None:
        inner = getattr(owner, name)

        def checked(*args: Any, **named: Any) -> Any:
            look(*args, **named)
            return inner(*args, **named)

        setattr(owner, name, checked)

    def _given(self, master: MasterPart, slot: Slot, now: float) -> None:
        """Nothing for what is not eligible, by our own reading of the axes, and nothing beyond the credit."""
        node = slot.node
        if not slot.open or not slot.connected or slot.stage is not Stage.READY:
            raise Violation(f"{slot.incarnation} is given a request and is not open ({slot.stage})")
        if node.intent is not Intent.ACTIVE or node.liveness is not Liveness.LIVE or node.health not in MAY_WORK:
            axes = f"{node.intent}, {node.liveness}, {node.health}"
            raise Violation(f"{slot.incarnation} is given a request, and its node is {axes}")
        if master.journal is not None and not _is_on_record(node.name, master.journal.known):
            raise Violation(f"{slot.incarnation} is given a request before its node's presence is durable")
        silent_s = now - node.heard_at
        if silent_s > master.core.settings.suspect_after + TICKS_S and now - master.woke_at > TICKS_S:
            raise Violation(f"{slot.incarnation} is given a request, and its node is silent for {silent_s:.1f} s")
        if slot.pool.pause is not None:
            raise Violation(f"{slot.incarnation} is given a request, and {slot.pool.name} is paused")
        if len(slot.inflight) >= slot.limit:
            raise Violation(f"{slot.incarnation} is given more than its credit of {slot.limit}")
        if self._fenced.get(slot) == slot.hellos:
            raise Violation(f"{slot.incarnation} is given a request, and has said that it obeys another master")

    def _refused(self, slot: Slot, request: Request, by: bytes, epoch: int) -> None:
        """It has no credit before its next HELLO."""
        if by == errors.BY_FENCE and request.epoch == epoch:
            self._fenced[slot] = slot.hellos

    def _failed(self, master: MasterPart, request: Request, code: int) -> None:
        """Nobody is left in doubt about what a process has told this master that it has. A master without a journal may
        have the epoch of one before it, and then takes what that one gave for its own. (One that has stood still takes
        a process for connected that has left it for another master.) What was run again here has given up its older
        attempts: of those nothing is owed when this one is lost, too.
        """
        ran_again = request.epoch == master.core.dispatch.epoch and request.attempt > 1
        if code != errors.MaybeExecuted.code or master.journal is None or ran_again:
            return
        for process in self.cluster.processes():
            slot = master.core.fleet.processes.slots.get(process.incarnation)
            is_here = process.link is not None and process.link.router is master.backend
            if slot is not None and slot.connected and is_here and process.has(request.origin()):
                raise Violation(f"a caller is told that it may have run what {slot.incarnation} has")

    def _settled(self, master: MasterPart, slot: Slot, now: float) -> None:
        """Only when its last replies are read, or given up."""
        found = master.core.fleet.processes._exiting.get(slot)
        if found is not None and slot.connected and now < found[1] and not master.backend.drained(slot.route):
            left_ms = 1000 * (found[1] - now)
            raise Violation(
                f"{slot.incarnation} is settled before its last replies were read, "
                f"{left_ms:.0f} of {1000 * REPLY_LOST_AFTER_S:.0f} ms early"
            )

    def _planned(self, owner: object, name: str, master: MasterPart) -> None:
        """A step that nobody is forced to take leaves `min_active` nodes, or as many as there were."""
        inner, core = getattr(owner, name), master.core

        def checked(*args: Any, **named: Any) -> Any:
            now = self.cluster.clock.now
            before = {pool: len(active_nodes(core.fleet.nodes, pool, now)) for pool in core.dispatch.pools.values()}
            result = inner(*args, **named)
            for pool, count in before.items():
                after = len(active_nodes(core.fleet.nodes, pool, now))
                if after < min(count, pool.settings.min_active) and not self._forced:
                    raise Violation(f"a planned step ({name}) left {pool.name} with {after} active nodes")
            return result

        setattr(owner, name, checked)

    @contextmanager
    def forced(self, yes: bool) -> Iterator[None]:
        """An operator insists."""
        self._forced = yes
        try:
            yield
        finally:
            self._forced = False

    # ---- what the master holds ---------------------------------------------------------------------------------------

    def after_step(self, master: MasterPart) -> None:
        self.steps += 1
        core = master.core
        places: dict[Request, int] = dict.fromkeys(core.dispatch.inherited.waiting, 1)
        places.update(dict.fromkeys(core.dispatch.quarantine.waiting, 1))
        for pool in core.dispatch.pools.values():
            self._pool(pool, places)
        self._bytes(core.dispatch, places)
        for request in core.dispatch.keys._callers:  # they wait for the attempt of their key, which has its own place
            places[request] = places.get(request, 0) + 1
        for slot in core.fleet.processes.slots.values():
            self._slot(slot)
            for request in slot.inflight.values():
                places[request] = places.get(request, 0) + 1
        self._requests(core.dispatch, places)
        self._begins(core)

    def _pool(self, pool: Pool, places: dict[Request, int]) -> None:
        waiting = [request for request in pool.queue if not request.answered]
        if pool.queued != len(waiting) + len(pool.pinned):
            raise Violation(f"{len(waiting)} requests wait, {len(pool.pinned)} in lines, and it counts {pool.queued}")
        self._lines(pool)
        for request in pool.waiting():
            places[request] = places.get(request, 0) + 1
            if request.slot is not None:
                raise Violation("a request is queued and dispatched at once")
        first = pool.shelf._least_loaded()
        if waiting and first is not None:
            raise Violation(f"{len(waiting)} requests wait though {first.incarnation} has credit")
        for row, slots in enumerate(pool.shelf._rows):
            for slot in slots:
                if slot.row != row or not slot.open or len(slot.inflight) >= slot.limit:
                    raise Violation(f"{slot.incarnation} is on the shelf: open {slot.open}, row {slot.row}")

    def _lines(self, pool: Pool) -> None:
        """Who waits for one slot waits once, and only while that has no room."""
        found = {request: slot for slot, line in pool.lines.items() for request in line}
        if found != pool.pinned or not all(pool.lines.values()):
            raise Violation(f"{len(found)} requests are in lines, {len(pool.pinned)} are known to be")
        for slot in pool.lines:
            if slot is not None and slot.open and len(slot.inflight) < slot.limit:
                raise Violation(f"{len(pool.lines[slot])} requests wait for {slot.incarnation}, which has room")

    def _bytes(self, dispatch: Dispatch, places: dict[Request, int]) -> None:
        queued = sum(len(request.frame) for request in places)
        if dispatch.queued_bytes != queued:
            raise Violation(f"the queues hold {queued} bytes and count {dispatch.queued_bytes}")

    def _slot(self, slot: Slot) -> None:
        if slot.open and not (slot.connected and slot.stage is Stage.READY and slot.node.eligible()):
            raise Violation(f"{slot.incarnation} is open: {slot.stage}, connected {slot.connected}")
        if slot.open and len(slot.inflight) < slot.limit and slot.row < 0:
            raise Violation(f"{slot.incarnation} has credit and is not on the shelf")
        if (slot in slot.pool.parked) != (slot.concurrency == 1 and len(slot.inflight) > 1):
            raise Violation(f"{slot.incarnation} has {len(slot.inflight)} in flight, and nobody looks at what waits")
        if slot.pool.slots.get(slot.incarnation) is not slot or slot.node.slots.get(slot.incarnation) is not slot:
            raise Violation(f"{slot.incarnation} is known to the fleet and not to its pool or node")

    def _begins(self, core: Master) -> None:
        """What waits at a process that does not begin it is taken back while another one has nothing to do."""
        now, before, self._unbegun = self.cluster.clock.now, self._unbegun, {}
        slots = core.fleet.processes.slots.values()
        idle = [slot.incarnation for slot in slots if slot.open and slot.limit and not slot.inflight]
        if not idle:
            return
        for slot in slots:
            for number in self._not_begun(core, slot) if slot.inflight else ():
                since = self._unbegun[slot, number] = before.get((slot, number), now)
                if now - since > TAKEN_BACK_S:
                    what = f"{slot.incarnation} has not begun {number} for {now - since:.1f} s"
                    raise Violation(f"{what}, and {idle[0]} has nothing to do")

    def _not_begun(self, core: Master, slot: Slot) -> list[int]:
        """Deliveries with callers that wait; none while nobody could ask for them."""
        agent = self.cluster.agents.get(slot.node.name)
        process = agent.processes.get(slot.incarnation) if agent is not None else None
        if process is None or not process.alive or not agent.hears():
            return []
        started_upto = process.page.words[STARTED_UPTO]
        return [
            number
            for number, request in slot.inflight.items()
            if number > started_upto and not request.answered and request.session is not core.dispatch.prober
        ]

    def _requests(self, dispatch: Dispatch, places: dict[Request, int]) -> None:
        ticks = [id(tick) for tick in dispatch.timers._at.values()]
        for session in dispatch.sessions.values():
            for number, request in session.open.items():
                if request.answered or places.get(request) != 1:
                    found = places.get(request, 0)
                    raise Violation(f"request {number} is in {found} places, answered {request.answered}")
                is_timed = request in request.tick and id(request.tick) in ticks
                if not is_timed and not dispatch.streams.begun(request):
                    raise Violation(f"request {number} has no deadline")

    # ---- the end -----------------------------------------------------------------------------------------------------

    def problem(self, master: MasterPart) -> str | None:
        """Why it is not over: after the last fault nothing stays silent, nothing stays stuck."""
        core = master.core
        if self.silent:
            silent = next(call for call in self.calls.values() if call.code is None)
            return f"{self.silent} calls got no answer, the first is {silent.id} ({silent.handler})"
        return self._open_problem(core) or self._node_problem(core.fleet)

    def _open_problem(self, core: Master) -> str | None:
        for slot in core.fleet.processes.slots.values():
            if slot.inflight or not slot.open:
                return f"{slot.incarnation} is {slot.stage}, open {slot.open}, in flight {list(slot.inflight)}"
        for session in core.dispatch.sessions.values():
            if session.open:
                return f"requests {list(session.open)} are open though every caller has its answer"
        if core.dispatch.inherited.orphans or core.dispatch.inherited.waiting:
            return "what an older master dispatched is still open"
        return None

    def _node_problem(self, fleet: Fleet) -> str | None:
        for name, agent in self.cluster.agents.items():
            node = fleet.nodes.get(name)
            if node is None or node.liveness is not Liveness.LIVE:
                return f"{name} is {node.liveness if node else 'unknown'}"
            if node.intent is not Intent.ACTIVE:
                return f"{name} is {node.intent}; {node.in_flight()} in flight"
            problem = self._process_problem(node, [each for each, p in agent.processes.items() if p.alive])
            if problem or len(node.slots) != agent.core.processes.capacity:
                return (
                    problem
                    or f"{name} is active and has {len(node.slots)} of {agent.core.processes.capacity} processes"
                )
        return None

    def _process_problem(self, node: Node, here: list[str]) -> str | None:
        if sorted(here) != sorted(node.slots):
            return f"{node.name} runs {sorted(here)}, the master knows {sorted(node.slots)}"
        return None

    def complete(self, master: MasterPart) -> None:
        problem = self.problem(master)
        if problem:
            raise Violation(problem)
        if sum(self.answers.values()) != len(self.calls):
            raise Violation(f"{len(self.calls)} calls and {sum(self.answers.values())} answers")
