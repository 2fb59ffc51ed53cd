"""What clients say: HELLO, requests, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable

from ...common import messages, wire
from ...common.limits import HEAD_MAX
from . import greeting
from .dispatch import Dispatch
from .events import EventLog
from .readers import Readers
from .recollection import ages_told
from .sessions import Session, Source

SESSIONS_MAX = 10_000  # clients that were heard of in the last `session_idle`; each may cost `answers_bytes`
SWEEP_S = 1.0
# Answers that a client has not acknowledged, of which at least the number is kept. One that reads has fewer than its
# window of requests; whoever acknowledges nothing, and goes on, is let go.
UNACKED_MAX = 100_000

_parse = wire.parse
_STREAM = (wire.CHUNK, wire.CREDIT)

Welcome = Callable[[int, bool], messages.Welcome]  # version of the protocol, was the session known


class Frontend:
    """The frames of the frontend socket. `source` tells over which connection the frame came that is being read."""

    def __init__(
        self, dispatch: Dispatch, events: EventLog, welcome: Welcome, token: Callable[[], int], now: float
    ) -> None:
        self.source: Callable[[], Source] = Source
        self._dispatch = dispatch
        self._out = dispatch.out
        self._events = events
        self._welcome = welcome
        self._token = token
        self._settled: dict[bytes, None] = {}  # sessions that were closed for their silence and had nothing open
        self._swept = now
        self._readers = Readers()

    def receive(self, route: bytes, frame: bytes, now: float, may_bundle: bool = True) -> None:
        dispatch = self._dispatch
        session = dispatch.routes.get(route)
        try:
            fields = _parse(frame)
            if fields[3] == wire.BUNDLE and may_bundle:
                return self._bundle(route, session, frame, fields, now)
        except wire.BadFrame:
            return self._damaged(route)
        if session is None or session.token != fields[5]:
            return self._stranger(route, fields, frame, now)
        session.heard_at = now
        kind = fields[3]
        upto = fields[9]
        if upto > session.acked:
            session.acknowledge(upto)
        if kind == wire.REQUEST:
            dispatch.request(session, fields, frame, now)
        elif kind == wire.CANCEL:
            dispatch.cancel(session, fields[8])
        elif kind == wire.BYE:
            dispatch.close_session(session)
        elif kind in _STREAM:
            dispatch.streams.from_client(session, fields, frame)
        elif kind != wire.ACK:
            dispatch.counters["bad frames"] += 1
        elif len(frame) > fields[11]:
            ages_told(session, frame[fields[11] :])

    def _bundle(self, route: bytes, session: Session | None, frame: bytes, fields: tuple[int, ...], now: float) -> None:
        """Several messages in one frame, most of them requests of this session."""
        dispatch = self._dispatch
        request = dispatch.request
        for each in wire.split(frame, fields):
            fields = _parse(each)
            if session is None or fields[3] != wire.REQUEST or fields[5] != session.token:
                self.receive(route, each, now, False)
                session = dispatch.routes.get(route)
                continue
            session.heard_at = now
            if fields[9] > session.acked:
                session.acknowledge(fields[9])
            request(session, fields, each, now)

    def receive_large(self, route: bytes, frame: wire.Large, now: float) -> None:
        """Takes the request that most large messages are without a copy, and anything else as `receive` does."""
        fields = wire.parse_large(frame)
        session = self._dispatch.routes.get(route)
        if fields is None or session is None or session.token != fields[5]:
            return self.receive(route, bytes(frame), now)
        session.heard_at = now
        if fields[9] > session.acked:
            session.acknowledge(fields[9])
        if fields[3] == wire.CHUNK:
            return self._dispatch.streams.from_client(session, fields, frame)
        origin = wire.ORIGIN_STRUCT.pack(session.id, fields[8])
        has_origin = fields[4] & wire.ORIGIN and frame[wire.HEADER_SIZE : wire.WITH_ORIGIN] == origin
        if fields[3] != wire.REQUEST or not has_origin:
            return self.receive(route, bytes(frame), now)
        fields = (*fields[:4], fields[4] ^ wire.ORIGIN, *fields[5:])
        self._dispatch.request(session, fields, frame, now, wire.WITH_ORIGIN)

    def _damaged(self, route: bytes) -> None:
        """What it was nobody can tell. A known client is asked to begin anew: its HELLO settles what was lost."""
        self._dispatch.counters["bad frames"] += 1
        if route in self._dispatch.routes:
            self._out.frontend.append((route, wire.head(wire.WHO, 0)))

    # ---- sessions --------------------------------------------------------------------------------

    def _stranger(self, route: bytes, fields: tuple[int, ...], frame: bytes, now: float) -> None:
        """No session has this route, or not with this token."""
        counters, out = self._dispatch.counters, self._out.frontend
        if fields[3] != wire.HELLO:
            counters["unknown routes"] += 1
            out.append((route, wire.head(wire.WHO, 0)))
            return
        if len(frame) > HEAD_MAX:  # whoever knows no more than this port may not make us decode a mebibyte
            counters["bad frames"] += 1
            return
        read = greeting.read(messages.ClientHello, frame[fields[11] :], "one lower", counters)
        if read is None:
            return
        if isinstance(read, messages.Refusal):
            return out.append((route, read.frame()))
        hello, version = read
        if len(hello.session) != 16:
            return
        resumed = hello.session in self._dispatch.sessions
        session = self._session(hello, now)
        if session is None:
            text = f"{SESSIONS_MAX} clients have sessions here already"
            return out.append((route, greeting.refusal("busy", text, 5000).frame()))
        self._greet(session, route, now)
        welcome = self._welcome(version, resumed)._replace(born=session.born)
        out.append((route, messages.framed(wire.WELCOME, session.token, welcome)))

    def _session(self, hello: messages.ClientHello, now: float) -> Session | None:
        """The one that it names, or a new one if there is room."""
        sessions = self._dispatch.sessions
        session = sessions.get(hello.session)
        if session is None and len(sessions) < SESSIONS_MAX:
            session = sessions[hello.session] = Session(hello.session, now)
            # Nothing of one that was settled can have run: what it sends again now was never accepted.
            session.born = self._token() >> 1 | 1
            session.epoch = 0 if hello.session in self._settled else max(0, hello.epoch)
            self._settled.pop(hello.session, None)
        return session

    def _greet(self, session: Session, route: bytes, now: float) -> None:
        """Makes this the session's connection from now on."""
        dispatch = self._dispatch
        earlier = dispatch.routes.get(route)
        if earlier is not None and earlier is not session:  # one connection, one session
            dispatch.close_session(earlier)
        dispatch.routes.pop(session.route, None)
        dispatch.unsent.pop(session, None)  # it asks again for what it lacks
        session.unsent = 0
        if session.route != route:  # asked twice over one connection, the first token is in use
            session.route, session.token = route, self._token()
            session.greeted_at = now
            session.source = self.source()
            session.outgoing.clear()  # under the old token; the client asks again for what it lacks
        session.heard_at = now
        dispatch.streams.greeted(session, now)
        dispatch.routes[route] = session

    def tick(self, now: float) -> None:
        """Cuts those that do not read, closes those that acknowledge nothing or were not heard of for long."""
        dispatch = self._dispatch
        settings, sessions = dispatch.settings, dispatch.sessions
        for session, why in self._readers.to_cut(sessions.values(), settings.answers_total, now):
            self._cut(session, why)
        if now - self._swept > SWEEP_S:
            self._swept = now
            for session in [s for s in sessions.values() if len(s.kept) > UNACKED_MAX]:
                self._cut(session, f"it has acknowledged none of {len(session.kept)} answers")
                dispatch.close_session(session)
            self._sweep([s for s in sessions.values() if now - s.heard_at > settings.session_idle])

    def _cut(self, session: Session, why: str) -> None:
        """Ends its connection, and with it what the transport holds for it. It may come back and ask for the rest."""
        owed = session.owed() >> 10
        self._dispatch.counters["slow readers cut"] += 1
        self._events.tell("cut", session.id.hex()[:8], f"client at {session.source.peer}: {why}, {owed} KiB unread")
        if session.route:
            self._out.cuts.append(session.source)
            self._dispatch.route_gone(session)

    def _sweep(self, idle: list[Session]) -> None:
        for session in idle:
            if not session.open and not session.kept:
                self._settled[session.id] = None
            self._dispatch.close_session(session)
        while len(self._settled) > SESSIONS_MAX:
            del self._settled[next(iter(self._settled))]
