"""Session affinity: requests of one session go to one process while it is there (docs/PROTOCOL.md, "Sessions stay").

Where a session goes for the first time follows from its name and from what is open, so that a master that forgot it, or
never knew it, finds the same place while nothing has changed. The table remembers it when things do change.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING, NamedTuple

from ...common import errors
from .pool import Pool, Request, Slot
from .recollection import Told

if TYPE_CHECKING:
    from .dispatch import Dispatch

NAMES_KEPT = 1 << 16  # hashes of versions, nodes and incarnations, which are needed again and again
_MASK = (1 << 64) - 1


class Pin(NamedTuple):
    """Where a session is. By names: the process may be gone."""

    service: str
    version: str
    node: str
    incarnation: str


class Pins:
    """Asked where a request of a session is admitted or comes back, and where a slot with a line has room."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.sessions: Counter[str] = Counter()  # by service
        self._pins: OrderedDict[int, Pin] = OrderedDict()  # by the session's hash, the one heard of last at the end
        self._dispatch = dispatch

    def status(self) -> dict[str, int]:
        return {"sessions": len(self._pins), "limit": self._dispatch.settings.pins_limit}

    # ---- requests --------------------------------------------------------------------------------

    def admit(self, request: Request, now: float) -> None:
        """Gives it to its session's process, else puts it in the line there."""
        dispatch, pool = self._dispatch, request.pool
        name = request.text("s")
        if not name:
            dispatch.counters["bad frames"] += 1
            cause = "it is to have a session, and its meta has none"
            return dispatch.fail(request, errors.ProtocolError.code, cause)
        slot = self._place(pool, name)
        if slot is not None and len(slot.inflight) < slot.limit:
            dispatch.give(slot, request, now)
        elif dispatch.may_wait(request, now, full=slot is not None and _is_full(pool, slot)):
            pool.line_up(request, slot)

    def requeue(self, pool: Pool, requests: list[Request]) -> None:
        """Puts them back to the front, in their order. Those of sessions are placed anew when the queue is next looked
        at.
        """
        pool.requeue([request for request in requests if not request.pinned()])
        for request in requests:
            if request.pinned():
                pool.line_up(request, None)

    def next_for(self, slot: Slot) -> Request | None:
        """The next request for a slot with room: of its own line or of the queue, whichever has waited longer."""
        pool = slot.pool
        own, first = pool.first_in_line(slot), pool.first_queued()
        if own is None or (first is not None and first.queued_at < own.queued_at):
            return self._dispatch.next_queued(pool)
        self._dispatch.leave_queue(own)
        return own

    def pump(self, pool: Pool, now: float) -> None:
        """Lines whose slot is gone move; those whose slot has room are served."""
        if any(_usable(slot) for slot in pool.slots.values()):
            for slot in [slot for slot in pool.lines if slot is None or not _usable(slot)]:
                self._move(pool, slot)
        for slot in list(pool.lines):
            while slot is not None and slot.open and len(slot.inflight) < slot.limit:
                request = pool.first_in_line(slot)
                if request is None:
                    break
                self._dispatch.leave_queue(request)
                self._dispatch.give(slot, request, now)

    def _move(self, pool: Pool, line: Slot | None) -> None:
        """All that waits there, to where its sessions are now. Who waited longer is before others there, too."""
        touched: set[Slot] = set()
        for request in list(pool.lines[line]):
            slot = self._place(pool, request.text("s"))
            if slot is not None:
                pool.leave_queue(request)
                pool.line_up(request, slot)
                touched.add(slot)
        for slot in touched:
            pool.lines[slot] = OrderedDict(sorted(pool.lines[slot].items(), key=lambda entry: entry[0].queued_at))

    # ---- places ----------------------------------------------------------------------------------

    def _place(self, pool: Pool, name: str) -> Slot | None:
        """The process of this session, another if that is gone; None while there is none, or too little is known."""
        session = _hash(f"{pool.name}\0{name}")
        pin = self._pins.get(session)
        if pin is not None:
            slot = pool.slots.get(pin.incarnation)
            if slot is not None and _usable(slot):
                self._pins.move_to_end(session)
                return slot
        elif self._dispatch.inherited.told(False) is Told.NOT_YET:
            return None  # a master that has just started: its sessions' processes are still coming back
        usable = [slot for slot in pool.slots.values() if _usable(slot)]
        if not usable:
            return None
        slot = _choose(session, pin, usable)
        self._dispatch.counters["sessions placed" if pin is None else "sessions moved"] += 1
        self._remember(session, Pin(pool.name, slot.version, slot.node.name, slot.incarnation))
        return slot

    def _remember(self, session: int, pin: Pin) -> None:
        if session not in self._pins:
            self.sessions[pin.service] += 1
        self._pins[session] = pin
        self._pins.move_to_end(session)
        while len(self._pins) > self._dispatch.settings.pins_limit:
            self.sessions[self._pins.popitem(last=False)[1].service] -= 1


def _usable(slot: Slot) -> bool:
    return slot.open and not slot.pool.starts_nothing(slot)


def _is_full(pool: Pool, slot: Slot) -> bool:
    """No line may take more than its share of the queue: one busy session must not refuse all others."""
    open_slots = sum(each.open for each in pool.slots.values())  # it is one of them
    return len(pool.lines.get(slot, ())) >= max(1, pool.settings.queue_limit // open_slots)


def _choose(session: int, before: Pin | None, usable: list[Slot]) -> Slot:
    """A slot as near to where the session was as can be: in the same cell, and there on the same node. Else cell, node
    and process are drawn.
    """
    slots = usable
    if before is not None:
        cell = [slot for slot in usable if slot.version == before.version]
        slots = [slot for slot in cell if slot.node.name == before.node] or cell or usable
    slots = _draw(session, slots, lambda slot: f"version {slot.version}")
    slots = _draw(session, slots, lambda slot: f"node {slot.node.name}")
    return _draw(session, slots, lambda slot: slot.incarnation)[0]


def _draw(session: int, slots: Iterable[Slot], name: Callable[[Slot], str]) -> list[Slot]:
    """One group of the slots that share a name, by weighted rendezvous hashing: when a group comes or goes, only its
    own share of the sessions is drawn elsewhere.
    """
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        groups.setdefault(name(slot), []).append(slot)
    if len(groups) == 1:
        return next(iter(groups.values()))
    return max(groups.items(), key=lambda group: (_score(session, group[0], len(group[1])), group[0]))[1]


def _score(session: int, name: str, weight: int) -> float:
    return weight / -log((_mix(session ^ _name_hash(name)) + 0.5) / 2.0**64)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


_name_hash = lru_cache(NAMES_KEPT)(_hash)


def _mix(number: int) -> int:
    """The end of splitmix64: each bit of the result depends on all bits."""
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _MASK
    return number ^ number >> 31
