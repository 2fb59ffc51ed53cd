"""Calls whose bytes may go in chunks, both ways (docs/PROTOCOL.md, "Streams"). Pure, as calls.py."""

from __future__ import annotations

from functools import cached_property

from ..common.errors import Error, MaybeExecuted, ProtocolError
from ..common.streams import WINDOW, BadStream, Inflow, Outflow, Replay, chunk_of, credit_of
from ..common.wire import CHUNK, Body
from .calls import Call, Calls, Failed, name

BEGUN_S = 3e6  # an answer that has begun may take as long as it likes; 35 days are as much as a header holds


class StreamCall(Call):
    """Its REQUEST says that chunks are understood. Whoever makes one says what becomes of what comes.

    out    the upload; None: there is none
    into   of the answer; say `taken` to the client when bytes of it have left memory
    """

    out: Outflow | Replay | None = None
    first: tuple[int, int] | None = None  # epoch and attempt that the answer is of; None: it has not begun

    @property
    def begun(self) -> bool:  # type: ignore[override]
        return self.first is not None

    @cached_property
    def into(self) -> Inflow:
        """Made when a first chunk comes: most answers have none."""
        return Inflow(granted=WINDOW)

    def came(self, data: Body, more: bool) -> None:
        """The next bytes of the answer, which are the transport's: to be copied, or let go soon. The last has more
        False.
        """
        raise NotImplementedError

    def room(self) -> None:
        """Credit has come: who waited because `out.blocked` may write on."""

    def behind(self, token: int, now: float) -> list[bytes]:
        if self.first is not None:
            self.deadline = now + BEGUN_S
        self.into.again()
        if self.out is not None:
            self.out.again()
        return self.frames(token)

    def parted(self, now: float) -> None:
        self.deadline = min(self.deadline, now + self.timeout)

    def frames(self, token: int) -> list[bytes]:
        """What there is to say and to send now."""
        made = []
        credit = self.into.credit()
        if credit is not None:
            made.append(credit.frame(token, self.number))
        while self.out is not None and (chunk := self.out.next()) is not None:
            made.append(chunk.frame(token, self.number))
        return made


def received(calls: Calls, fields: tuple[int, ...], frame: Body, now: float) -> list[Failed]:
    """CHUNK or CREDIT. Returns the call with its error if that ended it."""
    call = calls.sent(fields[8])
    if not isinstance(call, StreamCall):
        if call is None:
            calls.unknown(fields[8])
        return []
    fresh = call.first is None
    try:
        problem = _chunk(call, fields, frame, now) if fields[3] == CHUNK else _credit(call, fields, frame)
    except BadStream as error:
        problem = ProtocolError(f"{name(call)}: {error}")
    if fresh and call.first is not None:
        calls.began(call)
    if problem is not None:
        calls.cancel(call)
        return [(call, problem)]
    calls.say(call)
    return []


def _chunk(call: StreamCall, fields: tuple[int, ...], frame: Body, now: float) -> Error | None:
    attempt = fields[6], fields[12]
    if call.first is None:
        call.first = attempt
        call.deadline = now + BEGUN_S
    elif call.first != attempt:
        return MaybeExecuted(f"{name(call)}: its answer had begun, and its process was lost")
    ended = call.into.ended
    data = call.into.came(chunk_of(fields, frame))
    if len(data) or call.into.ended is not ended:
        call.came(data, not call.into.ended)
    return None


def _credit(call: StreamCall, fields: tuple[int, ...], frame: Body) -> Error | None:
    if call.out is not None:
        call.out.credited(credit_of(fields, frame))
        call.room()
    return None
