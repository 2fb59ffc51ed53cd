"""What processes say: HELLO, replies, and the pieces of their streams."""

from __future__ import annotations

from collections.abc import Callable

from ...common import messages, wire
from . import greeting
from .fleet import Fleet
from .frontend import Welcome
from .sessions import Source

_parse = wire.parse
_STREAM = (wire.CHUNK, wire.CREDIT)


class Backend:
    """The frames of the backend socket. `source` tells over which connection the frame came that is being read."""

    def __init__(self, fleet: Fleet, welcome: Welcome, token: Callable[[], int]) -> None:
        self.source: Callable[[], Source] = Source
        self._dispatch = fleet.dispatch
        self._fleet = fleet
        self._out = fleet.out
        self._welcome = welcome
        self._token = token

    def receive(self, route: bytes, frame: bytes, now: float, may_bundle: bool = True) -> None:
        try:
            fields = _parse(frame)
            if fields[3] == wire.BUNDLE and may_bundle:
                for each in wire.split(frame, fields):
                    self.receive(route, each, now, False)
                return
        except wire.BadFrame as error:
            return self._bad_reply(route, str(error), now)
        slot = self._dispatch.slot_routes.get(route)
        if slot is None or slot.token != fields[5]:
            return self._stranger(route, fields, frame, now)
        if fields[3] == wire.REPLY:
            self._dispatch.reply(slot, fields, frame, now)
        elif fields[3] in _STREAM:
            self._dispatch.streams.from_process(slot, fields, frame)
        elif fields[3] == wire.BYE:
            self._fleet.processes.bye(slot, now)
        else:
            self._bad_reply(route, f"kind {fields[3]}", now)

    def receive_large(self, route: bytes, frame: wire.Large, now: float) -> None:
        """Takes the reply that most large messages are without a copy, and anything else as `receive` does."""
        fields = wire.parse_large(frame)
        slot = self._dispatch.slot_routes.get(route)
        if fields is None or slot is None or slot.token != fields[5]:
            self.receive(route, bytes(frame), now)
        elif fields[3] == wire.REPLY:
            self._dispatch.reply(slot, fields, frame, now)
        elif fields[3] == wire.CHUNK:
            self._dispatch.streams.from_process(slot, fields, frame)
        else:
            self.receive(route, bytes(frame), now)

    def _bad_reply(self, route: bytes, what: str, now: float) -> None:
        """Counted, and held against its node; the process is asked to say HELLO again."""
        self._dispatch.counters["bad frames"] += 1
        slot = self._dispatch.slot_routes.get(route)
        if slot is not None:
            self._out.backend.append((route, wire.head(wire.WHO, 0)))
            self._fleet.checks.misbehaved(slot, f"its process sent a frame that breaks the protocol: {what}", now)

    def _stranger(self, route: bytes, fields: tuple[int, ...], frame: bytes, now: float) -> None:
        """No slot has this route, or not with this token."""
        if fields[3] != wire.HELLO:
            self._dispatch.counters["unknown routes"] += 1
            return self._out.backend.append((route, wire.head(wire.WHO, 0)))
        read = greeting.read(messages.ProcessHello, frame[fields[11] :], "two lower", self._dispatch.counters)
        if read is None:
            return
        if isinstance(read, messages.Refusal):
            return self._out.backend.append((route, read.frame()))
        hello, version = read
        found = self._fleet.processes.hello(route, hello, self._token(), now)
        if isinstance(found, messages.Refusal):
            return self._out.backend.append((route, found.frame()))
        found.source = self.source()
        welcome = self._welcome(version, True)._replace(upto=found.acked)
        self._out.backend.append((route, messages.framed(wire.WELCOME, found.token, welcome)))
