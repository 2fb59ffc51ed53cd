"""The one door of the master's core: frames in from three sockets, time in, effects out through the outbox.

What clients and processes say it hands to `frontend` and `backend`. Here is the control socket, whose peers it knows by
route and token: agents (for the `fleet`), operators, and the other master (for the `pair`). No frame, however odd,
raises: it is counted, answered with WHO or REFUSED, or dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from ...common import messages, wire
from ...common.lifecycle import Liveness
from ...common.limits import EPOCH_MAX
from . import greeting, received, records, status
from .backend import Backend
from .beginning import Heritage, Identity, Past, Sections, Sources
from .dispatch import Dispatch
from .engine_lease import Answer, EngineLease
from .events import EventLog
from .fleet import Fleet
from .followers import Active, Followers
from .frontend import Frontend
from .group import Group
from .operators import Operators
from .outbox import Notify, Outbox, StepDown
from .pair import Pair
from .pool import Slot
from .recollection import AGE_MAX_S
from .registry import Node
from .sessions import Source

SHORT_TICK_S = 0.02  # while something is draining, exiting or parked
ALONE_TICK_S = 0.005  # while a suspect has a slot for itself: it is to be empty no longer than that
LONG_TICK_S = 0.1  # beats come each 200 ms: what is late is seen within half of that
# For so long a node control is left alone after beats, while there is nothing else to do: 40 nodes then wake an idle
# master for each tick, not for each of 200 beats a second. A wake-up costs more than what is done in it: it runs cold.
BEATS_REST_S = 0.0025
STOP_WAIT_S = 0.25  # for what processes hold and have not begun to come back, when this master stops
PAUSE_S = 1.0  # a gap between two ticks that was not the others' fault


class Leaving(StrEnum):
    """Why a master dispatches nothing any more."""

    STOPPED = "told to stop"
    HANDING_OVER = "hands over"  # as an operator asked
    OUTVOTED = "outvoted"  # about to step down


class Master:
    """All that one master decides."""

    def __init__(
        self,
        identity: Identity,
        settings: Sections,
        past: Past,
        sources: Sources,
        heritage: Heritage,
        lease: EngineLease | None,
        now: float,
    ) -> None:
        """`lease`: where an engine decides who is active: we have it."""
        self.identity = identity
        self.settings = settings.master
        self.out = Outbox()
        self.events = EventLog(sources.wall)
        self.dispatch = Dispatch(self.out, past.epoch, settings)
        self.fleet = Fleet(self.dispatch, self.events, sources, self._journal, now)
        self._connect_dispatch(sources)
        self.known = past.known  # the sum of all records: what a standby gets first
        self.fleet.restore(past.known.copy())  # whoever keeps the records is not to keep the nodes, and all behind them
        if past.known.peer or past.known.members:  # nodes may have to find out first that it is not that one any more
            self.fleet.patient_until = now + settings.standby.takeover_grace
        self.events.adopt(heritage.events)
        active = Active(
            identity.name, settings.standby, self.known, past.last_record, self._journal, self.out, self.events
        )
        self.pair: Followers = (
            Group(active, lease, now)
            if lease is not None
            else Pair(active, heritage.granted, self.fleet.voters, heritage.complete, now)
        )
        self.dispatches_until = self.pair.until()
        for session, frame in heritage.answers:
            self.dispatch.inherited.recorded(session, frame)
        self.durable = settings.durable
        self.alarms: dict[str, str] = {}
        self.operators = Operators(self.fleet, self.alarms, self.status, self.pair, self.hand_over)
        self._token = sources.token
        self._now = now
        self._ticked_at = now
        self._pace = SHORT_TICK_S
        self._began = now
        self._agents: dict[bytes, Node] = {}
        self._records = self._durable = past.last_record
        self._stop_by = now
        self._leaving: Leaving | None = None
        self._clients = Frontend(self.dispatch, self.events, self._welcome, sources.token, now)
        self._processes = Backend(self.fleet, self._welcome, sources.token)
        self.frontend, self.frontend_large = self._clients.receive, self._clients.receive_large
        self.backend, self.backend_large = self._processes.receive, self._processes.receive_large
        self.lag = 0.0
        self._routine = 0  # messages since control was read that come by the clock, and wait for nothing
        self.events.tell("master", identity.name, f"active with epoch {past.epoch}")
        if self.durable:
            self._know_from(heritage.complete)

    def _connect_dispatch(self, sources: Sources) -> None:
        """Connects the dispatch to whom it asks and whom it tells."""
        dispatch = self.dispatch
        dispatch.inherited.told = lambda older: self.fleet.census.told(older, self._now)
        dispatch.losses.tell = self.events.tell
        dispatch.quarantine.tell = self.events.tell
        dispatch.quarantine.wall = sources.wall
        dispatch.quarantine.journal = self._journal

    def _know_from(self, complete: bool) -> None:
        """Notes since which epoch the records name every node that was given anything."""
        since = self.known.whole_since if complete else None
        if since is None:
            since = self.dispatch.epoch
            self._journal(records.whole(since))
        self.dispatch.inherited.recollection.whole_since = since
        idle = self.settings.session_idle  # what is younger was not asked in a session that was closed since
        self.dispatch.inherited.recollection.age_max = min(AGE_MAX_S, 0.9 * idle)

    def read_from(self, clients: Callable[[], Source], processes: Callable[[], Source]) -> None:
        """`clients`, `processes`: functions that tell over which connection the frame came that is being read."""
        self._clients.source, self._processes.source = clients, processes

    # ---- control ---------------------------------------------------------------------------------

    @property
    def counters(self) -> Counter[str]:
        return self.dispatch.counters

    @property
    def stopping(self) -> bool:
        return self._leaving is Leaving.STOPPED

    def control_gone(self, route: bytes) -> None:
        """A message could not be sent there: nobody has this route any more."""
        self.operators.gone(route)
        self.pair.gone(route)

    def control(self, route: bytes, frame: bytes, now: float) -> None:
        self._now = now
        try:
            head = wire.parse_head(frame)
        except wire.BadFrame:
            return self._damaged(route)
        node = self._agents.get(route)
        if node is not None and head.kind == wire.CONTROL and head.token == node.token:
            return self._from_agent(node, frame, head.head_len, now)
        token = self._token_of(route)
        if head.kind == wire.HELLO and head.token == 0:
            self._control_hello(route, frame[head.head_len :], now)
            self._set_pace()
        elif self.pair.is_from(route, head.token):
            self._from_standby(route, head.kind, frame[head.head_len :], now)
        elif token == 0 or head.token != token:
            self.counters["unknown routes"] += 1
            self.out.control.append((route, wire.head(wire.WHO, 0)))
        elif head.kind == wire.BYE:
            self._control_bye(route, now)
        elif head.kind != wire.CONTROL:
            self.counters["bad frames"] += 1
        else:
            self._from_operator(route, frame[head.head_len :], now)

    def rest_s(self, read: int) -> float:
        """How long control may be left alone after so many messages of it: not at all, unless they were routine, no
        request is open that a lost process could delay, and nobody waits for what agents do.
        """
        routine, self._routine = self._routine, 0
        is_busy = self._pace != LONG_TICK_S or self.dispatch.timers.next_deadline() is not None
        if is_busy or not routine or read != routine:
            return 0.0
        silence = min(self.settings.suspect_after, self.pair.settings.takeover_after)  # the shortest that matters
        return min(LONG_TICK_S, silence / 8, BEATS_REST_S * len(self.fleet.nodes))

    def _damaged(self, route: bytes) -> None:
        """What it was nobody can tell. An agent is asked to begin anew: its HELLO settles what was lost."""
        self.counters["bad frames"] += 1
        if route in self._agents:
            self.out.control.append((route, wire.head(wire.WHO, 0)))

    def _control_hello(self, route: bytes, body: bytes, now: float) -> None:
        hello = received.message(body, self.counters)
        if not isinstance(hello, greeting.OnControl):
            if hello is not None:
                self.counters["bad messages"] += 1
            if refusal := greeting.not_understood(body):
                self._refuse(route, refusal)
            return
        version = greeting.agree(hello.versions)
        if version is None:
            return self._refuse(route, greeting.incompatible(hello.versions))
        match hello:
            case messages.OperatorHello():
                self.operators.came(route, self._admit(route, version), hello.user)
            case messages.VoterHello():
                self._admit(route, version)  # it may have us for its master, if it has none
                if hello.node in self.fleet.nodes:
                    self._heard_of(hello.epoch)
            case messages.PeerHello():
                self._standby_hello(route, hello, version, now)
            case messages.AgentHello():
                self._agent_hello(route, hello, version, now)

    def _admit(self, route: bytes, version: int) -> int:
        """Says WELCOME. Answers the token of this peer."""
        token = self._token_of(route) or self._token()
        self.out.control.append((route, messages.framed(wire.WELCOME, token, self._welcome(version, False))))
        return token

    def _refuse(self, route: bytes, refusal: messages.Refusal) -> None:
        self.out.control.append((route, refusal.frame()))

    def _agent_hello(self, route: bytes, hello: messages.AgentHello, version: int, now: float) -> None:
        token = self._token_of(route) or self._token()
        place = len(self.out.control)
        self._rise_above(hello)
        if hello.epoch > self.dispatch.epoch:
            return self._outlived(route, hello)
        found = self.fleet.hello(route, hello, token, now)
        if isinstance(found, messages.Refusal):
            return self._refuse(route, found)
        gone = (Liveness.DEAD, Liveness.CLOSED)  # perhaps forgotten: of such a node this is the last that is known
        for old in [old for old, node in self._agents.items() if node is found or node.liveness in gone]:
            del self._agents[old]
        self._agents[route] = found
        # WELCOME goes before whatever the hello has led to.
        self.out.control.insert(place, (route, messages.framed(wire.WELCOME, token, self._welcome(version, False))))
        if found.generation > hello.generation:
            self.fleet.intents.say(found)

    def _outlived(self, route: bytes, hello: messages.AgentHello) -> None:
        """This agent knows of a higher epoch than ours."""
        if not self.pair.alone and hello.node in self.fleet.nodes:
            self._refuse(route, greeting.refusal("standby", "another master was elected", 100))
            return self._heard_of(hello.epoch)
        ours = self.dispatch.epoch
        text = f"epoch {hello.epoch} was seen on {hello.node}, this master has {ours}: is its --state lost?"
        self._refuse(route, greeting.refusal("denied", text, 5000))

    def _standby_hello(self, route: bytes, hello: messages.PeerHello, version: int, now: float) -> None:
        why = self.pair.refuse(hello)
        if not why:
            self._heard_of(hello.epoch)
        if not self.durable:
            why = f"{self.identity.name} has no --state directory: it would not remember that it has a standby"
        if why:
            return self._refuse(route, greeting.refusal("denied", why, 5000))
        self.pair.greet(route, self._admit(route, version), hello, self.dispatch.epoch, now)

    def _from_standby(self, route: bytes, kind: int, body: bytes, now: float) -> None:
        if kind == wire.BYE:
            return self.pair.gone(route, said_bye=True)
        message = received.message(body, self.counters) if kind == wire.CONTROL else None
        if message is not None:
            self.pair.from_standby(route, message, now)
            self._confirm(now)

    def _heard_of(self, epoch: int) -> None:
        """Somebody told of this epoch. If it is higher than ours another master was elected, or may be: this one steps
        down.
        """
        if epoch > self.dispatch.epoch and not self.pair.alone and self._leaving is not Leaving.OUTVOTED:
            self.events.tell("step down", self.identity.name, f"epoch {epoch} was seen, ours is {self.dispatch.epoch}")
            self._leaving = Leaving.OUTVOTED
            self.fleet.stop(self._now)
            self._leave(handover=False)
            self.out.role.append(StepDown(epoch))

    def _token_of(self, route: bytes) -> int:
        """What this route was given, 0 if nothing. A peer that says HELLO again (two WHO were on their way to it) has
        frames under the first token on their way to us: another one would make them strangers, and WHO without end.
        """
        node = self._agents.get(route)
        return node.token if node is not None else self.operators.token(route)

    def _rise_above(self, hello: messages.AgentHello) -> None:
        """Without a journal the epoch is one more than any that an agent has seen from an earlier master."""
        if self.durable or hello.epoch >= EPOCH_MAX:
            return
        node = self.fleet.nodes.get(hello.node)
        is_known = node is not None and node.boot == hello.boot  # then it has seen ours
        if hello.epoch > self.dispatch.epoch or (hello.epoch == self.dispatch.epoch and not is_known):
            self.dispatch.epoch = hello.epoch + 1

    def _control_bye(self, route: bytes, now: float) -> None:
        node = self._agents.pop(route, None)
        if node is not None and node.route == route:
            self.fleet.bye(node, now)
        self.operators.gone(route)

    def _from_operator(self, route: bytes, body: bytes, now: float) -> None:
        message = received.message(body, self.counters)
        if isinstance(message, messages.Verb):
            self.operators.verb(route, message, now)
        elif isinstance(message, messages.Follow):
            self.operators.follow(route, message)
        else:
            self.counters["bad messages"] += 1
        self._set_pace()

    def _from_agent(self, node: Node, frame: bytes, head_len: int, now: float) -> None:
        message = received.message(frame[head_len:], self.counters)
        if message is None:
            return
        if node.liveness in (Liveness.DEAD, Liveness.CLOSED):
            # It was given up: what it says now is of no use before it has said HELLO with all that it has.
            del self._agents[node.route]
            self.out.control.append((node.route, wire.head(wire.WHO, 0)))
            return
        match message:
            case messages.Beat():
                self._routine += 1
                self.fleet.beat(node, now, message.unheard_ms / 1000)
                if message.epoch > self.dispatch.epoch:
                    self._heard_of(message.epoch)
                else:
                    self.pair.beat(node.name, message, now)
                self.out.control.append((node.route, frame))  # the same Beat
            case messages.Started():
                self.fleet.processes.started(node, message, now)
            case messages.Exited():
                self.fleet.processes.exited(node, message, now)
            case messages.Ending():
                self.fleet.processes.ending(node, message, now)
            case messages.Failing():
                self.fleet.processes.failing(node, message)
            case messages.Recalled():
                self.fleet.recalls.answered(node, message, now)
            case messages.Usage():
                self._routine += 1
                self.fleet.processes.usage(node, message)
            case messages.Leaving():
                self.fleet.intents.leaving(node, message, now)
                self._set_pace()
            case messages.Unwell():
                self.fleet.checks.port(node, message.service, message.text)
            case messages.Reload():
                self.fleet.intents.reload(node, message)
            case _:
                self.counters["bad messages"] += 1

    def status(self, now: float, nodes: bool = True) -> dict[str, Any]:
        dispatch = self.dispatch
        return {
            "master": {
                "name": self.identity.name,
                "role": self.pair.role,
                "state": "active",
                "epoch": self.dispatch.epoch,
                "uptime_s": now - self._began,
                "pid": self.identity.pid,
                "durable": self.durable and "journal" not in self.alarms,
                "alarms": [
                    *self.alarms.values(),
                    *self.pair.alarms(now),
                    *self.fleet.checks.alarms(now),
                    *self.fleet.pauses.alarms(now),
                ],
                **self.pair.status(now),
                "counters": dict(dispatch.counters),
                "sessions": len(dispatch.sessions),
                "loop_lag_ms": self.lag * 1000,
                "keys": dispatch.keys.status(),
                "pins": dispatch.pins.status(),
                "maintenance": {name: each._asdict() for name, each in sorted(dispatch.maintenance.closed.items())},
            },
            "services": status.services(self.fleet, now),
            "nodes": status.nodes(self.fleet, now) if nodes else [],
        }

    # ---- time and word from the shell ------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Everything that is due. Called at least as often as `next_deadline` says."""
        gap = now - self._ticked_at
        if gap > PAUSE_S:
            self.fleet.extend(gap, now)
            self.dispatch.streams.woken(now)
            self.events.tell("paused", self.identity.name, f"this master stood still for {gap:.1f} s")
        self._now = self._ticked_at = now
        if now >= self.dispatches_until:  # before anything is dispatched that is due
            self.lapse(now)
        self.dispatch.tick(now)
        self.fleet.tick(now)
        self._clients.tick(now)
        self.operators.tick(now)
        self.pair.tick(self.dispatch.epoch, now)
        self._confirm(now)
        self.dispatches_until = self.pair.until()
        self.hold(self.dispatches_until <= now, now)
        if self._pace != LONG_TICK_S:
            self._set_pace()

    def engine_answered(self, answer: Answer, now: float) -> None:
        """The lease is renewed, or not; or somebody else has it by now."""
        assert isinstance(self.pair, Group)
        lease = self.pair.lease
        lease.answered(answer, now)
        self.dispatches_until = lease.until
        if lease.known_epoch > self.dispatch.epoch:
            self._heard_of(lease.known_epoch)
        else:
            self.hold(self.dispatches_until <= now, now)

    def lapse(self, now: float) -> None:
        """`dispatches_until` is over, as far as the shell knows: nothing is dispatched that may not be."""
        self.dispatches_until = self.pair.until()
        if self.dispatches_until <= now:
            self.hold(True, now)

    def hold(self, held: bool, now: float) -> None:
        """Without a quorum nothing is dispatched; what comes waits in the queue."""
        if held != self.fleet.held:
            text = f"requests are held: {self.pair.why_held(now)}" if held else "requests are dispatched again"
            self.events.tell("no quorum" if held else "quorum", self.identity.name, text)
            if held:
                self.out.role.append(Notify("no quorum", self.identity.name, text))
            self.fleet.hold(held, now)

    def _set_pace(self) -> None:
        """Ticks are short while nodes drain, this master stops, or operators wait: that begins with somebody's word,
        and ends in a tick. Looks at every node.
        """
        hurry = self.fleet.is_draining() or self.fleet.stopping or self.operators.waiting or self.operators.early
        self._pace = SHORT_TICK_S if hurry else LONG_TICK_S

    def next_deadline(self) -> float:
        dispatch, period = self.dispatch, self._pace
        if dispatch.unsent or self.fleet.busy():
            period = SHORT_TICK_S
        if dispatch.quarantine.busy():
            period = ALONE_TICK_S
        due = dispatch.timers.next_deadline()
        due = self._ticked_at + period if due is None else min(due, self._ticked_at + period)
        return min(due, self.pair.next_deadline())

    def stop(self, now: float) -> None:
        """Told to stop: nothing is dispatched any more. Once `ready_to_end`, `end` is the last word."""
        if self._leaving is None:
            self.events.tell("master", self.identity.name, "told to stop")
            self._stop(Leaving.STOPPED, now)

    def _stop(self, leaving: Leaving, now: float) -> None:
        self._leaving = leaving
        self._stop_by = now + STOP_WAIT_S
        self.fleet.stop(now)
        self._set_pace()

    def ready_to_end(self, now: float) -> bool:
        is_ending = self._leaving in (Leaving.STOPPED, Leaving.HANDING_OVER)
        return is_ending and (now >= self._stop_by or self.fleet.recalls.settled())

    def end(self) -> None:
        """What nobody has begun goes back to its callers. What runs goes on, and comes to the next master."""
        if self._leaving is Leaving.OUTVOTED:
            return  # it has said its last word, and steps down
        self._leave(self._leaving is Leaving.HANDING_OVER or self.pair.hands_over)
        if self._leaving is Leaving.HANDING_OVER:
            self.out.role.append(StepDown(self.dispatch.epoch))

    def _leave(self, handover: bool) -> None:
        given_back = self.dispatch.hand_back()
        for route, node in self._agents.items():
            self.out.say(route, node.token, messages.Release(self.dispatch.epoch))
        if not self.pair.alone:  # processes look out for their next master
            refused = greeting.refusal("standby", f"{self.identity.name} is not active any more", 100).frame()
            self.out.backend += [(route, refused) for route in self.dispatch.slot_routes]
        self.pair.close(self.dispatch.epoch, handover, self._now)
        self.operators.handed_over(self.dispatch.epoch, given_back)

    def hand_over(self, now: float) -> str:
        """A planned switchover begins, if nothing speaks against it: why not."""
        why = self.pair.unready()
        if not why and self._leaving is None:
            self._stop(Leaving.HANDING_OVER, now)
        return why

    def reconfigure(self, settings: Sections) -> None:
        """After a reload of the configuration: pools take their new settings."""
        self.settings = self.dispatch.settings = settings.master
        self.pair.settings = settings.standby
        self.fleet.reconfigure()

    def undeliverable(self, slot: Slot, frames: list[wire.Frame], gone: bool, now: float) -> None:
        """The transport did not take these deliveries. `gone`: their route is no more."""
        if now >= self.dispatches_until:
            self.lapse(now)
        self.dispatch.losses.undeliverable(slot, frames, gone, now)

    def recorded(self, number: int, now: float) -> None:
        """Everything up to this record is durable here."""
        self._durable = number
        self.pair.recorded(number, self.dispatch.epoch, now)
        self.dispatches_until = self.pair.until()  # it was without end, if there is a first standby now
        if now >= self.dispatches_until:  # a node that is recorded is given work
            self.lapse(now)
        self._confirm(now)

    def _confirm(self, now: float) -> None:
        """What is durable here, and at the standby as long as that follows, may be relied upon."""
        number = self.pair.durable(self._durable)
        self.operators.recorded(number)
        self.fleet.recorded(number, now)

    def journal_failed(self, text: str) -> None:
        """Control verbs are refused from now on; dispatch goes on. Whoever waits for a record is told not to."""
        self.alarms["journal"] = text
        self.events.tell("alarm", "journal", text)
        self.operators.unrecorded(text)

    def _journal(self, data: bytes, ours: bool = False) -> int:
        """The number of the record. `ours`: of no concern to a standby."""
        self._records += 1
        self.out.records.append((self._records, data))
        if not ours:
            self.known.read(data)
        self.pair.record(self._records, data, ours)
        return self._records

    def _welcome(self, version: int, resumed: bool) -> messages.Welcome:
        me = self.identity
        return messages.Welcome(
            version,
            self.dispatch.epoch,
            me.name,
            resumed,
            me.frontend_port,
            me.backend_port,
            me.host,
            self.settings.max_message,
            lease_ms=self.pair.lease_ms,
        )
