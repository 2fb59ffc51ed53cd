"""Rules of the protocol, each broken on purpose: the simulation must find every one (`run.py --mutants`).

The docstring is the rule; the function breaks it in the real cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any
from unittest.mock import patch

from rota.client import streams as client_streams
from rota.client.calls import Calls
from rota.client.streams import StreamCall
from rota.common import lifecycle, messages, wire
from rota.common.lifecycle import Health, Intent, Liveness
from rota.common.streams import Chunk, Inflow, Outflow
from rota.master.core import budget, inherited, losses
from rota.master.core.backend import Backend
from rota.master.core.census import Census
from rota.master.core.dispatch import IN_QUEUE, Dispatch
from rota.master.core.inherited import Inherited
from rota.master.core.losses import Losses
from rota.master.core.pins import Pins
from rota.master.core.pool import UNCAPPED, Pool, Request, Shelf, Slot
from rota.master.core.processes import Processes
from rota.master.core.recalls import Recalls
from rota.master.core.recollection import Recollection
from rota.master.core.records import Restored
from rota.master.core.registry import Node
from rota.master.core.sessions import Session
from rota.master.core.streams import Streams
from rota.worker.core.deliveries import Deliveries, Delivery
from rota.worker.page import FENCE_EPOCH, FIRST_ROW, FLOOR, ROW_WORDS, STARTED_UPTO, Page

from . import faults
from .faults import Fault

Put = Callable[[object, str, Any], None]
Mutant = Callable[[Put], None]

MUTANTS: dict[str, Mutant] = {}
# The faults under which a broken rule shows soonest; all of them where it shows at once.
SHOWN_BY: dict[str, tuple[Fault, ...]] = {
    "unreachable_settles_all": (faults.reset_connection, faults.reset_all),
    "exit_settles_at_once": (faults.kill_process,),
    "dead_node_counts_as_not_started": (faults.cut_machine, faults.isolate_one_way, faults.kill_agent),
    "lost_recall_counts_as_answered": (faults.stop_process, faults.reset_connection),
    "silent_process_keeps_what_it_has": (faults.stop_process,),
    "page_keeps_the_first_reply": (faults.kill_process,),
    "page_read_when_a_delivery_comes": (faults.stop_process, faults.restart_master),
    "fence_ignored": (faults.restart_master, faults.stop_process),
    "kept_replies_not_sent_again": (faults.reset_connection, faults.reset_all),
    "token_not_checked": (faults.forge,),
    "resend_runs_again": (faults.reset_connection, faults.reset_all),
    "older_master_forgotten": (faults.restart_master,),
    "one_attempt_hides_another": (faults.stop_process, faults.stop_process, faults.restart_master),
    "what_was_done_ignored": (faults.restart_master, faults.reset_all),
    "memory_ignored": (faults.restart_master, faults.cut_machine),
    "ended_processes_ignored": (faults.restart_master, faults.kill_process),
    "earlier_agents_ignored": (faults.restart_master, faults.kill_agent, faults.reset_all),
    "age_ignored": (faults.restart_master, faults.isolate_one_way, faults.reset_all),
    "nodes_that_left_ignored": (faults.restart_master, faults.stop_agent, faults.isolate_one_way, faults.reset_all),
    "told_before_all_processes_have": (faults.restart_master,),
    "drain_keeps_dispatching": (faults.operate,),
    "suspect_keeps_getting_work": (faults.pause_agent, faults.isolate_one_way),
    "work_before_durable": (faults.operate, faults.restart_master),
    "budget_ignored": (faults.operate,),
    "line_of_a_lost_process_waits": (faults.kill_process,),
    "paused_process_has_credit": (faults.operate,),
    "stream_not_sent_again": (faults.reset_connection, faults.reset_all),
    "stream_offsets_ignored": (faults.reset_connection, faults.reset_all),
    "answers_of_two_runs": (faults.kill_process, faults.reset_all),
    "stream_of_nobody": (faults.cancel,),
}


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """As long as this lasts the rule does not hold, in every cluster."""
    patches = []

    def put(owner: object, name: str, value: Any) -> None:
        patched = patch.object(owner, name, value)
        patched.start()
        patches.append(patched)

    try:
        mutant(put)
        yield
    finally:
        for each in reversed(patches):
            each.stop()


def rule(mutant: Mutant) -> Mutant:
    MUTANTS[mutant.__name__] = mutant
    return mutant


# ---- evidence about what was lost -----------------------------------------------------------------------------------


@rule
def unreachable_settles_all(put: Put) -> None:
    """EHOSTUNREACH settles the message that was being sent, and nothing else that is in flight there."""

    def undeliverable(self: Losses, slot: Slot, frames: list[bytes], gone: bool, now: float) -> None:
        requests, slot.inflight = list(slot.inflight.values()), {}
        slot.pool.unpark(slot)
        self.disconnected(slot)
        self.not_started(requests, now)

    put(Losses, "undeliverable", undeliverable)


@rule
def exit_settles_at_once(put: Put) -> None:
    """An exit is settled when the route is gone and the last replies are read, or after 200 ms."""
    exited = Processes.exited

    def hasty(self: Processes, node: Node, report: messages.Exited, now: float) -> None:
        exited(self, node, report, now)
        for slot in list(self._exiting):
            self.settle(slot, now)

    put(Processes, "exited", hasty)


@rule
def received_upto_ignored(put: Put) -> None:
    """At HELLO only what is above received_upto never arrived; the rest is held there and waited for."""
    rejoined = Losses.rejoined

    def forgetful(self: Losses, slot: Slot, received_upto: int, held: list[messages.Held], now: float) -> None:
        rejoined(self, slot, 0, held, now)

    put(Losses, "rejoined", forgetful)


@rule
def exit_page_ignored(put: Put) -> None:
    """Below started_upto of the page a delivery was started: it is not given to another process."""
    exited = Losses.exited

    def blind(self: Losses, slot: Slot, report: messages.Exited, now: float) -> None:
        exited(self, slot, report._replace(started_upto=0), now)

    put(Losses, "exited", blind)


@rule
def dead_node_counts_as_not_started(put: Put) -> None:
    """What a dead node had may have run there: it is answered MaybeExecuted."""

    def abandoned(self: Losses, slot: Slot, cause: str, now: float) -> None:
        requests, slot.inflight = list(slot.inflight.values()), {}
        self.not_started(requests, now)

    put(Losses, "abandoned", abandoned)


@rule
def lost_recall_counts_as_answered(put: Put) -> None:
    """A recall that was lost with the agent's connection is asked for again."""
    inventory = Processes.inventory

    def forgetful(self: Processes, node: Node, *told: Any) -> None:
        for slot in node.slots.values():
            slot.recall = 0
        inventory(self, node, *told)

    put(Processes, "inventory", forgetful)


@rule
def silent_process_keeps_what_it_has(put: Put) -> None:
    """What a process has not begun is taken back where nothing is parked, too."""
    put(Recalls, "_long_silent", lambda self, pool, now: [])


@rule
def started_runs_again(put: Put) -> None:
    """A started attempt runs again only if its handler says that it may; a key alone does not."""
    put(Request, "may_run_again", lambda self: True)


# ---- the page -------------------------------------------------------------------------------------------------------


@rule
def page_written_after_the_handler(put: Put) -> None:
    """The page names a delivery before its handler begins."""
    start, done = Page.start, Page.done

    def late_start(self: Page, row: int, number: int, *rest: Any) -> bool:
        before = self.words[STARTED_UPTO]
        may_run = start(self, row, number, *rest)
        self.words[STARTED_UPTO] = before
        return may_run

    def late_done(self: Page, row: int, reply: bytes) -> None:
        self.words[STARTED_UPTO] = max(self.words[STARTED_UPTO], self.words[FIRST_ROW + row * ROW_WORDS])
        done(self, row, reply)

    put(Page, "start", late_start)
    put(Page, "done", late_done)


@rule
def page_keeps_the_first_reply(put: Put) -> None:
    """The reply that stands in a row is that of the row's delivery, and is compared with it."""
    done = Page.done
    first: dict[tuple[Page, int], bytes] = {}
    put(Page, "done", lambda page, row, reply: done(page, row, first.setdefault((page, row), reply)))

    def believed(row: messages.Row) -> tuple[int, ...] | None:
        if row.state != messages.ROW_DONE or not row.reply:
            return None
        fields = wire.parse(row.reply)
        return *fields[:8], row.number, *fields[9:]

    for module in (inherited, losses):
        put(module, "reply_in", believed)


@rule
def fence_ignored(put: Put) -> None:
    """A process runs nothing of an epoch below its fence."""
    put(Page, "start", _start_without(FENCE_EPOCH))


@rule
def floor_ignored(put: Put) -> None:
    """A process runs nothing below its floor: that was taken back."""
    put(Page, "start", _start_without(FLOOR))


@rule
def page_read_when_a_delivery_comes(put: Put) -> None:
    """What waits for an event loop may be taken back meanwhile: floor and fence are read when it starts."""
    take, start = Deliveries.take, Page.start
    came: dict[tuple[Page, int], tuple[int, int]] = {}

    def early(self: Deliveries, *given: Any) -> Delivery | None:
        delivery, words = take(self, *given), self._page.words
        if delivery is not None:
            came[self._page, delivery.number] = words[FLOOR], words[FENCE_EPOCH]
        return delivery

    def late(self: Page, row: int, number: int, *rest: Any) -> bool:
        kept = self.words[FLOOR], self.words[FENCE_EPOCH]
        self.words[FLOOR], self.words[FENCE_EPOCH] = came.pop((self, number))
        may_run = start(self, row, number, *rest)
        self.words[FLOOR], self.words[FENCE_EPOCH] = kept
        return may_run

    put(Deliveries, "take", early)
    put(Page, "start", late)


def _start_without(word: int) -> Callable[..., bool]:
    start = Page.start

    def careless(self: Page, *args: Any) -> bool:
        kept, self.words[word] = self.words[word], 0
        may_run = start(self, *args)
        self.words[word] = kept
        return may_run

    return careless


@rule
def kept_replies_not_sent_again(put: Put) -> None:
    """A reply is kept until it is acknowledged, and sent again after each HELLO."""

    def welcomed(self: Deliveries, token: int, epoch: int, upto: int) -> list[bytes]:
        self.token, self.epoch = token, epoch
        self.acknowledged(upto)
        return []

    put(Deliveries, "welcomed", welcomed)


# ---- who may speak --------------------------------------------------------------------------------------------------


@rule
def token_not_checked(put: Put) -> None:
    """A routing id is no authority: a frame with another token than its session's is dropped."""
    receive = Backend.receive

    def trusting(self: Backend, route: bytes, frame: bytes, now: float, may_bundle: bool = True) -> None:
        slot, fields = self._dispatch.slot_routes.get(route), wire.parse(frame)
        if slot is not None and fields[3] == wire.REPLY:
            self._dispatch.reply(slot, fields, frame, now)
        else:
            receive(self, route, frame, now, may_bundle)

    put(Backend, "receive", trusting)


@rule
def resend_runs_again(put: Put) -> None:
    """Every final answer is kept until it is acknowledged: a resend gets it, and runs nothing."""
    put(Session, "recorded", lambda self, number: None)


@rule
def answer_not_given_again(put: Put) -> None:
    """A resend of what was answered meanwhile gets that answer."""
    unusual = Dispatch._unusual

    def silent(self: Dispatch, session: Session, fields: tuple[int, ...]) -> bool:
        answered = fields[8] not in session.open and session.recorded(fields[8])
        return not (fields[4] & wire.RESENT and answered) and unusual(self, session, fields)

    put(Dispatch, "_unusual", silent)


@rule
def unstarted_without_evidence(put: Put) -> None:
    """Only what waits in the queue and was in no process is told that its time passed before it was started."""
    withdraw = Dispatch.withdraw

    def careless(self: Dispatch, request: Request) -> str:
        withdraw(self, request)
        request.attempt = 0
        return IN_QUEUE

    put(Dispatch, "withdraw", careless)


@rule
def deadline_counted_double(put: Put) -> None:
    """A request has the whole time that its caller gives it."""
    request = Dispatch.request

    def hasty(self: Dispatch, session: Session, fields: tuple[int, ...], *rest: Any) -> None:
        request(self, session, (*fields[:7], fields[7] // 2, *fields[8:]), *rest)

    put(Dispatch, "request", hasty)


@rule
def older_master_forgotten(put: Put) -> None:
    """What an older master may have started is settled by evidence, and not run as if it were new."""
    look_up = Inherited.look_up

    def careless(self: Inherited, request: Request, older: bool, now: float) -> None:
        look_up(self, request, False, now)

    put(Inherited, "look_up", careless)


@rule
def one_attempt_hides_another(put: Put) -> None:
    """Of all attempts that processes hold of a request, its caller gets the one that runs."""
    adopt = Inherited.adopt

    def narrow(self: Inherited, slot: Slot, held: messages.Held, now: float) -> None:
        adopt(self, slot, held, now)
        del self.orphans.get((held.session, held.request), [])[1:]

    put(Inherited, "adopt", narrow)


# ---- what never ran -------------------------------------------------------------------------------------------------


@rule
def what_was_done_ignored(put: Put) -> None:
    """What a process says it has done is not run again."""
    put(Recollection, "was_done", lambda self, request: False)


@rule
def memory_ignored(put: Put) -> None:
    """A process remembers only the last that it did: what may be older than these is not run again."""
    told = Recollection.process_told
    put(Recollection, "process_told", lambda self, done, done_ms, now: told(self, done, -1, now))


@rule
def ended_processes_ignored(put: Put) -> None:
    """What a process did that has ended nobody remembers."""
    told = Recollection.agent_told
    put(Recollection, "agent_told", lambda self, ended_ms, up_ms, now: told(self, -1, up_ms, now))


@rule
def earlier_agents_ignored(put: Put) -> None:
    """Nor what processes of an earlier agent did."""
    told = Recollection.agent_told
    put(Recollection, "agent_told", lambda self, ended_ms, up_ms, now: told(self, ended_ms, 1 << 40, now))


@rule
def age_ignored(put: Put) -> None:
    """A request that may be older than what everybody remembers is not run again."""
    put(Session, "asked_after", lambda self, number: inf)


@rule
def nodes_that_left_ignored(put: Put) -> None:
    """Nor one that a node may have run that has left since, or was forgotten: it is on record for a while."""

    def read(self: Restored, record: dict[str, Any]) -> None:
        read_present(self, record)
        self.left.clear()

    read_present = Restored._read_present
    put(Restored, "_read_present", read)


@rule
def told_before_all_processes_have(put: Put) -> None:
    """A node has told when each process that it has named has said HELLO, or has ended."""
    look = Census.look

    def hasty(self: Census, node: Node, now: float) -> None:
        self._must_tell.discard(node.name)
        self._inherited.reconsider(now)
        look(self, node, now)

    put(Census, "look", hasty)


# ---- who is given work ----------------------------------------------------------------------------------------------


@rule
def drain_keeps_dispatching(put: Put) -> None:
    """A drain stops dispatching in the step that accepts it."""
    eligible = lifecycle.eligible
    put(lifecycle, "eligible", lambda intent, liveness, health: eligible(Intent.ACTIVE, liveness, health))


@rule
def suspect_keeps_getting_work(put: Put) -> None:
    """A node that is suspect gets nothing new."""
    eligible = lifecycle.eligible

    def trusting(intent: Intent, liveness: Liveness, health: Health) -> bool:
        return eligible(intent, Liveness.LIVE if liveness is Liveness.SUSPECT else liveness, health)

    put(lifecycle, "eligible", trusting)


@rule
def work_before_durable(put: Put) -> None:
    """A node gets work only when its presence is on disk: the next master must know whom to ask."""
    put(Node, "eligible", lambda self: lifecycle.eligible(self.intent, self.liveness, self.health))


@rule
def credit_ignored(put: Put) -> None:
    """No process has more in flight than its credit."""

    placed = Shelf.placed

    def generous(self: Shelf, slot: Slot) -> None:
        limit, slot.limit = slot.limit, UNCAPPED
        placed(self, slot)
        slot.limit = limit

    put(Shelf, "placed", generous)


@rule
def budget_ignored(put: Put) -> None:
    """A planned step leaves min_active nodes."""
    put(budget, "refusal", lambda pools, nodes, leaving, now: None)


@rule
def request_forgotten(put: Put) -> None:
    """Every accepted request is in exactly one place, and has a deadline."""
    wait, seen = Dispatch._wait, [0]

    def forgetful(self: Dispatch, request: Request, now: float) -> None:
        seen[0] += 1
        if seen[0] % 10:
            wait(self, request, now)

    put(Dispatch, "_wait", forgetful)


# ---- sessions and pauses --------------------------------------------------------------------------------------------


@rule
def line_of_a_lost_process_waits(put: Put) -> None:
    """What waits for a process that is not open any more moves with its session."""
    put(Pins, "_move", lambda self, pool, line: None)


@rule
def paused_process_has_credit(put: Put) -> None:
    """A service that is paused is given nothing, whatever changes its processes' credit."""
    adopt = Pool.adopt

    def generous(self: Pool, slot: Slot) -> None:
        pause, self.pause = self.pause, None
        adopt(self, slot)
        self.pause = pause

    put(Pool, "adopt", generous)


# ---- streams --------------------------------------------------------------------------------------------------------


@rule
def stream_not_sent_again(put: Put) -> None:
    """Over a new connection what is not known to be received is sent again."""
    put(Outflow, "again", lambda self: None)


@rule
def stream_offsets_ignored(put: Put) -> None:
    """What came twice is skipped, and what is beyond a gap waits."""
    came = Inflow.came

    def trusting(self: Inflow, chunk: Chunk) -> Any:
        return came(self, chunk._replace(offset=self.received))

    put(Inflow, "came", trusting)


@rule
def answers_of_two_runs(put: Put) -> None:
    """An answer that has begun is not made again, and chunks of another attempt are not of it."""
    chunk = client_streams._chunk

    def trusting(call: StreamCall, *came: Any) -> Any:
        call.first = None
        return chunk(call, *came)

    def why_not(self: Losses, request: Request, now: float, planned: bool) -> str:
        request.deadline = min(request.deadline, now + 60.0)  # the next attempt has to be told one
        return "" if request.may_run_again() else "its handler does not allow it"

    put(Losses, "_why_not_again", why_not)
    put(client_streams, "_chunk", trusting)


@rule
def stream_of_nobody(put: Put) -> None:
    """A stream that nobody waits for is told so, also by whom it reaches: it has no deadline of its own."""
    put(Calls, "unknown", lambda self, number: None)
    put(Streams, "greeted", lambda self, session, now: None)
