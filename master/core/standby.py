"""The master that is not active: it follows the other one, and takes over when it may (docs/STANDBY.md).

It is the one door of its core, as `Master` is of the active one's, and answers on the same sockets, mostly with "not
here". When it may is for `PairStandby` and `EngineStandby` to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from math import inf
from typing import Any

from ...common import exits, fields, messages, wire
from ...common.fields import BadMessage
from ...common.lifecycle import Liveness
from ...common.messages import UnknownMessage
from ...common.names import valid_name
from ...common.settings import BACKUP, PRIMARY
from . import greeting
from .beginning import Identity, Past, Sections, Sources
from .candidacy import Candidacy, Stage
from .events import Event, EventLog, newest
from .follower import ANSWERS, DEAD_AFTER
from .liveness import moved
from .mirror import Mirror, OutOfStep
from .operators import Connected, only_looks
from .outbox import BecomeActive, Dial, HangUp, Outbox, Rise, SayPeer
from .records import Peer
from .verbs import Outcome, Refuse, argument, check
from .voters import Voters

TICK_S = 0.02
PAUSE_S = 1.0  # between two ticks: it was we who stood still, not the active
REDIAL_S = 0.2
LACKING_S = 5.0  # until an active is tried again of which we could not take in everything
ANSWER_S = 3.0  # a HELLO without an answer for so long: the connection is worth nothing
ALONE_S = 2.0  # after a start: the other master does not answer
FIRST_S = 0.2  # of two that start together: who was active last
SECOND_S = 0.6  # then the primary
RETRY_MS = 100  # for whoever asks the wrong master: a takeover may be under way


class Standby(ABC):
    """Events in (frames, the link to the other master, what became durable, time), effects out, as with `Master`."""

    def __init__(self, identity: Identity, settings: Sections, past: Past, sources: Sources, now: float) -> None:
        self.identity = identity
        self.name = identity.name
        self.settings = settings.standby
        self.out = Outbox()
        self.events = EventLog(sources.wall)
        self.mirror = Mirror(past.known, past.last_record, self.out)
        self.candidacy = self._new_candidacy(max(past.stood, past.epoch))
        self.epoch = past.epoch  # of the last active master that is known
        self.liveness = Liveness.UNKNOWN  # of the active
        self.stopping = False
        self.dispatches_until = inf  # it does not
        self.lag = 0.0
        self.alarms: dict[str, str] = {}
        self.counters: Counter[str] = Counter({"bad frames": 0})
        self._durable = settings.durable
        self._was_active = past.epoch_by == self.name  # in that epoch
        self._sources = sources
        self._began = self._ticked_at = now
        self._active = past.known.peer.name if past.known.peer else ""  # the other master's name
        self._heard_at = now
        self._promised_until = now + self.settings.takeover_after  # what an earlier life of ours may have promised
        self._sequence = 0  # of the active's records, as its last pulse tells
        self._link_token = 0  # of the active's WELCOME; 0 = there is none over this link
        self._dial_at: float | None = now  # None: the link is open, or about to be
        self._refused_once = False  # as of another version
        self._idle_peer = False  # the other master is no more active than this one
        self._forced = False  # to stand, by an operator; until the active is heard
        # Until then the active, if it was we, has recorded nothing that is not known here.
        self._whole_until = inf if self._was_active else -inf
        self._linked_at = now
        self._voters = Voters(self.out)
        self._operators = Connected(self.out, self.events, self.alarms, self.counters)
        self.events.tell(
            "master", self.name, f"standby; the other master is at {self.peer_address or 'an unknown address'}"
        )

    @abstractmethod
    def _new_candidacy(self, seen: int) -> Candidacy:
        """`seen`: the highest epoch that is known."""

    @property
    def role(self) -> str:
        return self.settings.role

    @property
    @abstractmethod
    def decider(self) -> str:
        """Who decides which master is active: `agents`, or the name of an engine."""

    @property
    def unable(self) -> str:
        """What would keep it from taking over, for the active master to tell."""
        return ""

    @property
    @abstractmethod
    def peer_address(self) -> str:
        """The control address of the master that it follows, or tries to."""

    # ---- the link to the other master ------------------------------------------------------------------------------

    def link_opened(self) -> None:
        lasts_ms, quorum = self.settings.takeover_ms, self.settings.quorum
        hello = messages.PeerHello(
            list(wire.VERSIONS), self.name, self.identity.address, self.role, self.epoch, lasts_ms, quorum, self.decider
        )
        self.out.role.append(SayPeer(messages.framed(wire.HELLO, 0, hello)))

    def link_lost(self, now: float) -> None:
        """No death: an active master may well be behind a connection that broke."""
        self._idle_peer = False
        self._dial_in(REDIAL_S, now)

    def _hang_up(self, now: float, wait_s: float = REDIAL_S) -> None:
        self._dial_in(wait_s, now)
        self.out.role.append(HangUp())

    def _dial_in(self, wait_s: float, now: float) -> None:
        if not self._link_token:
            self._try_next()
        self._link_token = 0
        self._dial_at = now + wait_s

    @abstractmethod
    def _try_next(self) -> None:
        """The master that was dialled is not active, or does not answer."""

    def from_link(self, frame: bytes, now: float) -> None:
        """Whatever is damaged may have been a record: over a new connection everything comes anew. What only a newer
        master says is none: a record that is missing leaves a gap in the sequence.
        """
        try:
            head = wire.parse_head(frame)
            if head.kind == ANSWERS and head.token == self._link_token:
                return self.mirror.keep(frame, head.head_len)
            if head.kind in (wire.WHO, wire.BYE):
                return self._hang_up(now)
            if head.kind not in (wire.WELCOME, wire.REFUSED, wire.CONTROL):
                self.counters["bad frames"] += head.kind != wire.PROBE
                return
            message = messages.decode(frame[head.head_len :])
        except UnknownMessage:
            self.counters["bad frames"] += 1
            return
        except (wire.BadFrame, BadMessage):
            self.counters["bad frames"] += 1
            return self._hang_up(now)
        except Exception as error:
            return self._mistaken(error, now)
        if isinstance(message, messages.Welcome):
            self._welcomed(message, head.token, now)
        elif isinstance(message, messages.Refusal):
            self._refused(message, now)
        elif head.token == self._link_token:
            self._from_active(message, now)

    def _welcomed(self, welcome: messages.Welcome, token: int, now: float) -> None:
        """Only of an active master, and of no older one than we know, there is something to be had."""
        self.alarms.pop("unanswered", None)
        self._refused_once = False
        self.candidacy.saw(welcome.epoch)
        self._idle_peer = welcome.state == "standby"  # a candidate is not to be met by another one
        if welcome.state != "active" or welcome.epoch < self.epoch:
            return self._hang_up(now)
        self._link_token, self._active, self._linked_at = token, welcome.master, now

    def _refused(self, refusal: messages.Refusal, now: float) -> None:
        self.alarms.pop("unanswered", None)
        if refusal.code == "incompatible" and not self._refused_once:  # a HELLO damaged on its way looks alike
            self._refused_once = True
            return self._hang_up(now)
        self._alarm("refused", f"the other master refuses this one: {refusal.message}")
        self._hang_up(now, max(REDIAL_S, refusal.wait_s))

    def _from_active(self, message: messages.Message, now: float) -> None:
        match message:
            case messages.Pulse():
                self._pulse(message, now)
            case messages.Closing():
                self._closing(message, now)
            case messages.Replica() | messages.Happened():
                self._copy(message, now)

    def _copy(self, message: messages.Replica | messages.Happened, now: float) -> None:
        try:
            self._replica(message, now) if isinstance(message, messages.Replica) else self._happened(message.events)
        except Exception as error:
            self._mistaken(error, now)

    def _mistaken(self, error: Exception, now: float) -> None:
        """A mistake of our own in what is only a copy of the active's: over a new connection that comes anew, whole."""
        self._operators.mistaken("following", error)
        self._lack(f"{self._active} could not be followed, by a mistake of this master's own", now)

    def _lack(self, text: str, now: float) -> None:
        self._alarm("records", text)
        self._hang_up(now, LACKING_S)

    def _happened(self, events: list[dict[str, Any]]) -> None:
        for each in events:
            try:
                self.mirror.events.append(fields.checked(Event, each)._asdict())
            except BadMessage:  # nothing hangs on it
                self.counters["bad messages"] += 1

    @abstractmethod
    def _pulse(self, pulse: messages.Pulse, now: float) -> None:
        """The active is there, and wants our promise."""

    def _heard(self, pulse: messages.Pulse, now: float) -> None:
        """We promise not to stand."""
        self._forced = False
        self.candidacy.unable.clear()
        self.candidacy.saw(pulse.epoch)
        if pulse.epoch > self.epoch:
            self.epoch, self._was_active = pulse.epoch, False
            self.out.role.append(Rise(pulse.epoch, self._active))
        self.alarms.pop("refused", None)
        self._sequence = pulse.sequence
        self._heard_at = now
        self._move("hello")
        # With what it records the active waits for us so long after each promise; a tenth less, as clocks go.
        self._whole_until = now + 0.9 * DEAD_AFTER * self.settings.takeover_after if self.mirror.synced else -inf
        self._promised_until = now + self.settings.takeover_after
        voters = len(self._voters.heard(now) & self.mirror.known.electorate)
        lasts_ms, confirmed = self.settings.takeover_ms, self.mirror.confirmed
        promise = messages.Promise(pulse.number, lasts_ms, confirmed, voters, self.unable)
        self.out.role.append(SayPeer(messages.framed(wire.CONTROL, self._link_token, promise)))

    def _replica(self, replica: messages.Replica, now: float) -> None:
        try:
            peer = Peer(self._active, self.peer_address, PRIMARY if self.role == BACKUP else BACKUP)
            self.mirror.replica(replica, peer)
            if not replica.more:  # the first part of a snapshot is only kept until the last one has come
                self.alarms.pop("records", None)
        except OutOfStep:
            self._hang_up(now)
        except ValueError as error:
            self._lack(f"{self._active} records what this master does not understand, update it: {error}", now)

    def _closing(self, closing: messages.Closing, now: float) -> None:
        if closing.epoch < self.epoch:
            return
        self._move("bye")
        self._closed(closing, now)
        self._hang_up(now)  # it has no more to say over this link, and may go on as a standby, or be active again

    @abstractmethod
    def _closed(self, closing: messages.Closing, now: float) -> None:
        """It has said goodbye, and perhaps handed over."""

    # ---- standing --------------------------------------------------------------------------------------------------

    def _tick_candidacy(self, now: float) -> None:
        if self.candidacy.again(now):
            self._begin(now)
        elif self.candidacy.stage is Stage.FOLLOWING and not self.candidacy.rests:
            if (why := self._why_stand(now)) and not self._lacks_records:
                self._stand(why, now)
        self._ask(now)

    @property
    def _lacks_records(self) -> bool:
        """Not all that the active has could be taken in: only an operator may want it all the same."""
        return "records" in self.alarms and not self._forced

    @abstractmethod
    def _why_stand(self, now: float) -> str:
        """Why it stands by itself; empty when it does not."""

    def _why_first(self, now: float) -> str:
        """After a start, when nobody seems to be active. Two that start together do so one after the other."""
        turn = FIRST_S if self._was_active else SECOND_S
        since = now - self._began
        if self._idle_peer and since >= turn:
            return "the other master is no more active than this one"
        if since >= ALONE_S + turn:
            return f"no active master answers at {self.peer_address}"
        return ""

    def _stand(self, why: str, now: float) -> None:
        self.events.tell("candidate", self.name, why)
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._rise()

    def _rise(self) -> None:
        """Makes the epoch for which it stands durable before anybody hears of it."""
        self.out.role.append(Rise(self.candidacy.stand(), ""))

    @abstractmethod
    def raised(self, now: float) -> None:
        """The epoch for which it stands is durable."""

    def _ask(self, now: float) -> None:
        """Asks for votes, but only nodes whose votes count: others would then tell of an epoch that nobody has to
        believe.
        """
        voters = [node for node in self._voters.nodes if self._counts(node)]
        if wanted := self.candidacy.to_ask(voters, now):
            self._voters.ask(wanted, self.candidacy.vote())

    @abstractmethod
    def _counts(self, node: str) -> bool:
        """Whether this node's vote, and what it says of epochs, counts."""

    @abstractmethod
    def _count(self, now: float) -> None:
        """Becomes active, or goes on, if it has won."""

    def _become_active(self, votes: str, granted: dict[str, float], now: float) -> None:
        epoch = self.candidacy.epoch
        self.candidacy.stage = Stage.WON
        self.events.tell("takeover", self.name, f"active with epoch {epoch}: {votes}")
        self.out.role.append(BecomeActive(epoch, granted, self.mirror.answers(), self._is_complete(now)))

    def _is_complete(self, now: float) -> bool:
        """Nothing that was recorded is missing here, and nobody was active meanwhile of whom we have heard nothing."""
        return now < self._whole_until and self.candidacy.foreign <= self.epoch

    def won(self) -> list[tuple[bytes, bytes]]:
        """What the voters are told once the master is there: route and frame."""
        return self._voters.frames(messages.Won(self.candidacy.epoch))

    # ---- whoever comes here ----------------------------------------------------------------------------------------

    def frontend(self, route: bytes, frame: bytes, now: float) -> None:
        self._not_here(route, frame, self.out.frontend)

    def backend(self, route: bytes, frame: bytes, now: float) -> None:
        self._not_here(route, frame, self.out.backend)

    def frontend_large(self, route: bytes, frame: wire.Large, now: float) -> None:
        self.out.frontend.append((route, wire.head(wire.WHO, 0)))

    def backend_large(self, route: bytes, frame: wire.Large, now: float) -> None:
        self.out.backend.append((route, wire.head(wire.WHO, 0)))

    def _not_here(self, route: bytes, frame: bytes, out: list[tuple[bytes, bytes]]) -> None:
        try:
            kind = wire.parse_head(frame).kind
        except wire.BadFrame:
            self.counters["bad frames"] += 1
            return
        if kind == wire.HELLO:
            out.append((route, self._refusal().frame()))
        elif kind != wire.BYE:
            out.append((route, wire.head(wire.WHO, 0)))

    def _refusal(self) -> messages.Refusal:
        text = f"{self.name} is a standby: the other master is at {self.peer_address or 'an unknown address'}"
        return greeting.refusal("standby", text, RETRY_MS)

    def control(self, route: bytes, frame: bytes, now: float) -> None:
        try:
            head = wire.parse_head(frame)
            if head.kind == wire.HELLO and head.token == 0:
                return self._hello(route, frame[head.head_len :], now)
            message = messages.decode(frame[head.head_len :]) if head.kind == wire.CONTROL else None
        except (wire.BadFrame, BadMessage):
            self.counters["bad frames"] += 1
            return
        if head.kind == wire.BYE:
            self.control_gone(route)
        elif node := self._voters.node(route, head.token):
            if isinstance(message, messages.Grant | messages.Deny) and self._counts(node):
                unable = self.candidacy.unable.get(node)
                self.candidacy.answered(node, message, self._sources.random(), now)
                if (why := self.candidacy.unable.get(node)) not in (None, unable):
                    self.events.tell("denied", node, f"{node} cannot vote: {why}")
                self._count(now)
        elif head.token == self._operators.token(route) != 0:
            self._from_operator(route, message, now)
        else:
            self.out.control.append((route, wire.head(wire.WHO, 0)))

    def rest_s(self, read: int) -> float:
        """Control is never left alone here: nobody beats."""
        return 0.0

    def _hello(self, route: bytes, body: bytes, now: float) -> None:
        try:
            hello = messages.decode(body)
        except BadMessage:
            hello = None
        if not isinstance(hello, greeting.OnControl):
            self.counters["bad frames"] += 1
            if refusal := greeting.not_understood(body):
                self.out.control.append((route, refusal.frame()))
            return
        version = greeting.agree(hello.versions)
        if version is None:
            answer = greeting.incompatible(hello.versions).frame()
        elif isinstance(hello, messages.AgentHello):
            self._member_saw(hello.node, hello.epoch)
            answer = self._refusal().frame()
        else:
            answer = messages.framed(wire.WELCOME, self._admit(route, hello, now), self._welcome(version))
        self.out.control.append((route, answer))
        self._ask(now)

    def _admit(self, route: bytes, hello: greeting.OnControl, now: float) -> int:
        """Answers its token."""
        token = self._sources.token()
        if isinstance(hello, messages.OperatorHello):
            self._operators.came(route, token, hello.user)
        elif isinstance(hello, messages.VoterHello) and valid_name(hello.node):
            self._member_saw(hello.node, hello.epoch)
            return self._voters.came(route, hello.node, token, now)
        return token

    def _member_saw(self, node: str, epoch: int) -> None:
        """What others tell of epochs counts for nothing: anybody can say anything."""
        if self._counts(node):
            self.candidacy.saw(epoch)

    def _state(self) -> str:
        return "standby" if self.candidacy.stage is Stage.FOLLOWING else "candidate"

    def _welcome(self, version: int) -> messages.Welcome:
        return messages.Welcome(version, self.epoch, self.name, state=self._state(), other=self.peer_address)

    def control_gone(self, route: bytes) -> None:
        """BYE, or its route was not there any more."""
        self._voters.gone(route)
        self._operators.gone(route)

    # ---- operators -------------------------------------------------------------------------------------------------

    def _from_operator(self, route: bytes, message: messages.Message | None, now: float) -> None:
        if isinstance(message, messages.Follow):  # what is told is our own; its number may be one of the history
            since, last = message.since, self._last_of_active()
            self._operators.follow(route, message._replace(since=since - last if since >= last else since))
        elif isinstance(message, messages.Verb):
            try:
                outcome = self._verb(message, now)
            except Refuse as refused:
                outcome = refused.outcome
            except Exception as error:
                if not only_looks(message):
                    raise
                outcome = self._operators.mistaken(message.verb, error)
            self._operators.say(route, outcome.result(message.id))

    def _verb(self, verb: messages.Verb, now: float) -> Outcome:
        is_forced = verb.verb == "switchover" and verb.args.get("force") is True
        if verb.verb not in ("status", "events") and not is_forced:
            text = f"{self.name} is a standby: ask the active master, {self._active} at {self.peer_address}"
            if not self._active:
                text = f"{self.name} is a standby, and has not heard another master at {self.peer_address} yet"
            raise Refuse(exits.REFUSED, text, active=self.peer_address)
        check(verb.verb, verb.args)
        if is_forced:
            return self._force(now)
        if verb.verb == "status":
            return Outcome(self.status(now))
        since, limit = argument(verb.args, "since", int, 0), argument(verb.args, "limit", int, 1000)
        return Outcome({"events": newest(reversed(self.history()), since, limit)})

    def _force(self, now: float) -> Outcome:
        """An operator knows that the active is gone for good. Votes are needed all the same."""
        if self.liveness is Liveness.LIVE:
            text = f"{self._active} is live: `rota switchover` without --force hands over in good order"
            raise Refuse(exits.REFUSED, text)
        if (left := self._promised_until - now) > 0:
            raise Refuse(exits.REFUSED, f"this standby has promised not to stand for another {left:.1f} s: try again")
        if self.candidacy.stage is Stage.FOLLOWING:
            self._forced = True
            self._stand("an operator asked for it", now)
        return Outcome({"epoch": self.candidacy.epoch, "to": self.name, "given_back": 0})

    def status(self, now: float) -> dict[str, Any]:
        electorate = self.mirror.known.electorate
        peer = {
            "name": self._active,
            "address": self.peer_address,
            "role": PRIMARY if self.role == BACKUP else BACKUP,
            "liveness": str(self.liveness),
            "lag": self.mirror.behind(self._sequence) if self.mirror.synced else None,
            "heard_ms": round((now - self._heard_at) * 1000) if self.liveness is not Liveness.UNKNOWN else None,
            "promise_ms": max(0, round((self._promised_until - now) * 1000)),
        }
        master = {
            "name": self.name,
            "role": self.role,
            "state": self._state(),
            "epoch": self.epoch,
            "uptime_s": now - self._began,
            "durable": self._durable and "journal" not in self.alarms,
            "alarms": list(self.alarms.values()),
            "counters": dict(self.counters),
            "peer": peer,
            "quorum": {
                "electorate": sorted(electorate),
                "voters": sorted(self._voters.heard(now) & electorate),
                "granted": sorted(self.candidacy.granted),
                "may_dispatch": False,
            },
        }
        return {"master": master, "services": [], "nodes": []}

    # ---- time and word from the shell ------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        gap = now - self._ticked_at
        self._ticked_at = now
        if gap > PAUSE_S:
            self.events.tell("paused", self.name, f"this master stood still for {gap:.1f} s")
            self._heard_at = min(now, self._heard_at + gap)
            self._began += gap
        if self._dial_at is not None and now >= self._dial_at and self.peer_address:
            self._dial_at, self._linked_at = None, now
            self.out.role.append(Dial(self.peer_address))
        if self._dial_at is None and not self._link_token and now - self._linked_at > ANSWER_S:
            self._alarm(
                "unanswered", f"{self.peer_address} answers no HELLO: is it a master, of the version of this one?"
            )
            self._hang_up(now)
        if self.liveness is Liveness.LIVE and now - self._heard_at > self.settings.takeover_after:
            self._move("silent")
        if self._link_token and now - max(self._heard_at, self._linked_at) > DEAD_AFTER * self.settings.takeover_after:
            self._hang_up(now)  # it is open, and nobody speaks: over another one the active may
        self._tick_candidacy(now)
        self._operators.tick(now)

    def next_deadline(self) -> float:
        return self._ticked_at + TICK_S

    def recorded(self, number: int, now: float) -> None:
        """Everything up to this record is durable; the next promise says so."""
        self.mirror.recorded(number)

    def journal_failed(self, text: str) -> None:
        self._alarm("journal", text)

    def stop(self, now: float) -> None:
        """Told to stop: the active goes on without us."""
        self.stopping = True
        self.out.role.append(SayPeer(wire.head(wire.BYE, self._link_token)))

    def lapse(self, now: float) -> None:  # noqa: B027
        """There is no right to dispatch that could run out."""

    def history(self) -> list[dict[str, Any]]:
        """What happened at the active, and then here: whoever takes over goes on with it."""
        own = self.events.since(0)
        last = self._last_of_active()
        return [*self.mirror.events, *({**event, "number": last + place} for place, event in enumerate(own, 1))]

    def _last_of_active(self) -> int:
        """The number of the last event that it has told us."""
        return max((event["number"] for event in self.mirror.events), default=0)

    def ready_to_end(self, now: float) -> bool:
        return self.stopping

    def end(self) -> None:  # noqa: B027
        """Nothing is owed to anybody."""

    def reconfigure(self, settings: Sections) -> None:
        self.settings = settings.standby

    def _alarm(self, kind: str, text: str) -> None:
        if self.alarms.get(kind) != text:
            self.alarms[kind] = text
            self.events.tell("alarm", self.name, text)

    def _move(self, event: str) -> None:
        title = f"active master {self._active}"
        self.liveness, words = moved(self.liveness, event, self._active, title, self.events)
        self.out.role += words
