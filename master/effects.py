"""Carries out what the core has decided, in the order of its outbox.

It is flat on purpose: all of this runs cold, once a wake-up (`Server._serve_role`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf

from ..common import wire
from ..common.clock import boottime
from .core.master import Master
from .core.outbox import Outbox
from .core.pool import Slot
from .core.standby import Standby
from .journal import Journal
from .ports import BATCH, Port, Ports, cut

PROBE_EVERY_S = 0.005  # how often it is looked whether an exited process's route is gone


class Effects:
    """The effects of one role. Those that change the role are for `play`."""

    def __init__(self, core: Master | Standby, ports: Ports, journal: Journal, play: Callable[[Outbox], None]) -> None:
        self._core = core
        self._control, self._frontend, self._backend = ports.control, ports.frontend, ports.backend
        self._journal = journal
        self._play = play
        self._probing: dict[Slot, None] = {}
        self._next_probe = 0.0

    def carry_out(self, out: Outbox) -> None:
        # WELCOME goes first: it has the token without which a peer drops what follows.
        if out.backend:
            frames, out.backend = out.backend, []
            for route, frame in frames:
                self._backend.send(route, frame)
        if out.frontend:
            frames, out.frontend = out.frontend, []
            for route, frame in frames:
                self._frontend.send(route, frame)
        if out.slots:
            self._send_deliveries(out)
        if out.sessions:
            self._send_answers(out)
        if out.control:
            self._send_control(out)
        if out.records:
            records, out.records = out.records, []
            self._journal.record(records)
        if out.cuts:
            cuts, out.cuts = out.cuts, []
            for source in cuts:
                cut(source)
        if out.probes:
            self._probing.update(dict.fromkeys(out.probes))
            out.probes.clear()
        if out.role:
            self._play(out)  # the last: after a change of role nobody has anything to do with the rest

    def _send_deliveries(self, out: Outbox) -> None:
        """What goes to one process goes in one frame, in the order of its numbers."""
        port = self._backend
        slots, out.slots = out.slots, []
        for slot in slots:
            frames, slot.outgoing = slot.outgoing, []
            if not frames:  # taken back meanwhile
                continue
            error, unsent = _send_together(port, slot.route, frames)
            if error:
                self._master().undeliverable(slot, unsent, error == errno.EHOSTUNREACH, boottime())

    def _send_answers(self, out: Outbox) -> None:
        """Likewise to one client, in the order of their sequences."""
        port = self._frontend
        sessions, out.sessions = out.sessions, []
        copies: list[tuple[bytes, int, wire.Frame]] | None = [] if self._master().pair.routes else None
        for session in sessions:
            frames, session.outgoing = session.outgoing, []
            if not frames:
                continue
            if copies is not None:
                copies += [(session.id, session.acked, frame) for frame in frames]
            error, unsent = _send_together(port, session.route, frames)
            if error:
                self._master().dispatch.answer_blocked(session, unsent, error == errno.EHOSTUNREACH)
        if copies:
            self._copy(copies)

    def _copy(self, answers: list[tuple[bytes, int, wire.Frame]]) -> None:
        """Sends answers to each standby, which keeps them for clients that ask there. One that does not read begins
        anew.
        """
        pair = self._master().pair
        gone = set()
        for route, frame in pair.copies(answers):
            if route not in gone and self._control.send(route, frame):
                gone.add(route)
                pair.gone(route)

    def _send_control(self, out: Outbox) -> None:
        frames, out.control = out.control, []
        for route, frame in frames:
            if self._control.send(route, frame):
                self._core.control_gone(route)

    def _master(self) -> Master:
        """Whose effects these are: a standby has none such."""
        assert isinstance(self._core, Master)
        return self._core

    # ---- exited processes ------------------------------------------------------------------------

    def next_deadline(self) -> float:
        return self._next_probe if self._probing else inf

    def tick(self, now: float) -> None:
        if self._probing and now >= self._next_probe:
            self._probe(now)

    def _probe(self, now: float) -> None:
        """An exited process: once its route is gone, all that it ever sent can be read, and then it is settled. While
        more is waiting than one batch, its last words may be among that: the next look goes on, and does not wait for
        them longer than the core does.
        """
        self._next_probe = now + PROBE_EVERY_S
        gone = [s for s in self._probing if self._backend.send(s.route, wire.head(wire.PROBE, s.token))]
        if not gone or self._backend.receive(self._core.backend, now) == BATCH:
            return
        for slot in gone:
            del self._probing[slot]
            self._master().fleet.processes.settle(slot, now)


def _send_together(port: Port, route: bytes, frames: list[wire.Frame]) -> tuple[int, list[wire.Frame]]:
    """Answers the errno that ended it, 0 for none, and what was not sent."""
    if len(frames) == 1:
        return port.send(route, frames[0]), frames
    sent = 0
    for count, frame in wire.bundles(frames):
        error = port.send(route, frame)
        if error:
            return error, frames[sent:]
        sent += count
    return 0, []
