"""Streams of requests that are in flight: frames from the one side go to the other. Nothing is kept of them here.

A stream is the matter of its two ends (common/streams.py). The master finds the other end, sees to it that nobody sends
more than was granted, and remembers that an answer has begun: it is then never made again by another process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from ...common import wire
from ...common.limits import CLIENT_TIMEOUT_S
from ...common.streams import WINDOW, BadStream, Credit, credit_of
from .pool import Request, Slot
from .sessions import Session

if TYPE_CHECKING:
    from .dispatch import Dispatch

ORPHAN_S = CLIENT_TIMEOUT_S  # for the caller of an older master's stream to come: then it has given up
CLAIM_S = 5.0  # for a client to say again what it waits for, over a new connection
PARTED_S = CLIENT_TIMEOUT_S  # for a caller whose connection is gone: it waits so long for another one
PROBE_EVERY_S = 5.0  # a connection that nothing is sent over tells nobody that it is gone
SILENT_S = 90.0  # a caller that is there says ACK every 60 s; one that lost us has given up after CLIENT_TIMEOUT_S


@dataclass(slots=True, eq=False, repr=False)
class _Stream:
    """What is known of one request's two directions."""

    begun: bool = False
    from_process: Credit = Credit(WINDOW, 0, False)  # the client's last word on the chunks that a process may send
    from_client: Credit = Credit(0, 0, False)  # the process's last word on the chunks that the client may send
    asked_by: tuple[Slot, int] | None = None  # the attempt that granted these: slot and delivery
    claim_by: float = inf  # when its caller must have said that it still waits
    torn: bool = False  # a frame of it was not taken: both ends are to be told where they are


class Streams:
    """Its owner hands over CHUNK and CREDIT of both sockets."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._streams: dict[Request, _Stream] = {}
        self._awake_since = 0.0
        self._probe_at = 0.0
        self._forsaken: dict[Request, float] = {}  # nobody waits for these: when their processes are to be told

    def __len__(self) -> int:
        """Answers that have begun and are not over."""
        return sum(stream.begun and not request.answered for request, stream in self._streams.items())

    def begun(self, request: Request) -> bool:
        stream = self._streams.get(request)
        return stream is not None and stream.begun

    def untold(self, request: Request) -> bool:
        """Its caller tells behind it how much of an answer it has, and has not done so yet."""
        return _streams(request) and request not in self._streams

    # ---- process → client ----------------------------------------------------------------------------------------

    def from_process(self, slot: Slot, fields: tuple[int, ...], frame: wire.Frame) -> None:
        """(No progress of the slot: what is parked behind a stream waits however busily that goes on.)"""
        request = slot.inflight.get(fields[8])
        if request is None or (request.answered and not self._dispatch.inherited.awaits_caller(request)):
            self._cancel(slot, fields[8])  # nobody waits for it: the process may not know
        elif request.answered:
            pass  # its caller has not come to this master yet
        elif not _streams(request):
            self._dispatch.counters["bad frames"] += 1
        elif fields[3] == wire.CHUNK:
            self._answer_chunk(request, fields, frame)
        else:
            self._upload_credit(request, slot, fields, frame)

    def _answer_chunk(self, request: Request, fields: tuple[int, ...], frame: wire.Frame) -> None:
        _, _, _, _, flags, _, epoch, _, _, _, offset, head_len, attempt = fields
        stream = self._of(request)
        if offset + len(frame) - head_len > stream.from_process.upto:
            self._dispatch.counters["bad frames"] += 1
            return
        if not stream.begun:
            _begin(request, stream)
        session = request.session
        head = wire.head(
            wire.CHUNK, session.token, epoch, number=request.number, below=offset, code=attempt, flags=flags & wire.MORE
        )
        self._to_client(request, wire.with_body(head, frame, head_len))

    def _upload_credit(self, request: Request, slot: Slot, fields: tuple[int, ...], frame: wire.Frame) -> None:
        credit = self._read(fields, frame)
        if credit is not None:
            stream = self._of(request)
            stream.from_client, stream.asked_by = credit, (slot, request.delivery)
            self._to_client(request, credit.frame(request.session.token, request.number))

    # ---- client → process ----------------------------------------------------------------------------------------

    def from_client(self, session: Session, fields: tuple[int, ...], frame: wire.Frame) -> None:
        request = session.open.get(fields[8])
        if request is None:
            return
        if not _streams(request):
            self._dispatch.counters["bad frames"] += 1
        elif fields[3] == wire.CREDIT:
            self._answer_credit(request, fields, frame)
        elif request.slot is not None:  # else it is on its way to a process, which will ask for what it wants
            self._upload_chunk(request, request.slot, fields, frame)

    def _upload_chunk(self, request: Request, slot: Slot, fields: tuple[int, ...], frame: wire.Frame) -> None:
        offset, head_len = fields[10], fields[11]
        if offset + len(frame) - head_len > self._granted(request):
            self._dispatch.counters["stray chunks"] += 1  # meant for an attempt that was lost
            return
        head = wire.head(wire.CHUNK, slot.token, number=request.delivery, below=offset, flags=fields[4] & wire.MORE)
        self._to_process(slot, wire.with_body(head, frame, head_len))

    def _answer_credit(self, request: Request, fields: tuple[int, ...], frame: wire.Frame) -> None:
        credit, slot = self._read(fields, frame), request.slot
        if credit is not None:
            stream = self._of(request)
            stream.from_process = credit
            if credit.received and not stream.begun:  # over an older master
                _begin(request, stream)
            if slot is not None:
                self._to_process(slot, credit.frame(slot.token, request.delivery))

    # ---- what goes wrong -----------------------------------------------------------------------------------------

    def given_up(self, request: Request) -> None:
        """Its caller has got a fault as its answer: whoever works on it may stop."""
        if request.slot is not None and _streams(request):
            self._cancel_attempt(request, request.slot)

    def forsaken(self, request: Request) -> None:
        """Nobody will come for it: at the next tick its process is told."""
        self._forsaken[request] = 0.0

    def unsent(self, requests: list[Request]) -> None:
        """Frames of these were not taken by a connection that is there: at the next tick their ends begin anew."""
        for request in requests:
            if request.answered:
                self.forsaken(request)  # it was CANCEL
            else:
                self._of(request).torn = True

    def greeted(self, session: Session, now: float) -> None:
        """A client has another connection, and says what it waits for. A CANCEL for another may have been lost."""
        for request, stream in self._streams.items():
            if request.session is session and stream.begun:
                stream.claim_by = now + CLAIM_S

    def claimed(self, request: Request) -> None:
        stream = self._streams.get(request)
        if stream is not None:
            stream.claim_by = inf

    def attached(self, request: Request) -> None:
        """The caller of an older master's stream and the process that runs it have found each other."""
        if _streams(request):
            self._of(request).torn = True

    def rejoined(self, requests: Iterable[Request], now: float) -> None:
        """Their process has another connection. It says itself where it is, but what it was told may be lost."""
        for request in requests:
            if request.answered:
                orphaned = self._dispatch.inherited.awaits_caller(request)
                self._forsaken[request] = now + ORPHAN_S if orphaned else now
            elif (stream := self._streams.get(request)) is not None:
                stream.torn = True

    def woken(self, now: float) -> None:
        """The master itself stood still: nobody was silent meanwhile."""
        self._awake_since = now

    def tick(self, now: float) -> None:
        for request in [request for request, due in self._forsaken.items() if due <= now]:
            del self._forsaken[request]
            if request.slot is not None:
                self._cancel_attempt(request, request.slot)
        for request, stream in list(self._streams.items()):
            if request.answered:
                del self._streams[request]
            elif stream.begun and self._is_deserted(request, stream, now):
                self._dispatch.cancel(request.session, request.number)
            elif stream.torn and request.slot is not None:
                self._mend(request, request.slot, stream)
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY_S
            self._probe()

    def _is_deserted(self, request: Request, stream: _Stream, now: float) -> bool:
        """Its caller has not come back for it in time, or has been silent for too long."""
        if stream.claim_by == inf and not request.session.route:
            stream.claim_by = now + PARTED_S
        return now >= stream.claim_by or now > max(request.session.heard_at, self._awake_since) + SILENT_S

    def _mend(self, request: Request, slot: Slot, stream: _Stream) -> None:
        """A frame was lost: both ends are told to send again from where the other one is."""
        stream.torn = False
        self._to_process(slot, stream.from_process._replace(again=True).frame(slot.token, request.delivery))
        if self._granted(request):
            again = stream.from_client._replace(again=True)
            self._to_client(request, again.frame(request.session.token, request.number))

    def _probe(self) -> None:
        """A caller whose process was killed says nothing more, and a stream may be quiet for hours."""
        for session in {request.session: None for request, stream in self._streams.items() if stream.begun}:
            if not session.unsent:
                self._dispatch.send(session, wire.head(wire.PROBE, session.token))

    def _granted(self, request: Request) -> int:
        """How much of its upload the attempt that is under way has granted: a process that did not ask gets nothing."""
        stream = self._of(request)
        return stream.from_client.upto if stream.asked_by == (request.slot, request.delivery) else 0

    # ---- frames --------------------------------------------------------------------------------------------------

    def _of(self, request: Request) -> _Stream:
        stream = self._streams.get(request)
        if stream is None:
            stream = self._streams[request] = _Stream()
        return stream

    def _read(self, fields: tuple[int, ...], frame: wire.Frame) -> Credit | None:
        try:
            return credit_of(fields, bytes(frame))
        except BadStream:
            self._dispatch.counters["bad frames"] += 1
            return None

    def _to_client(self, request: Request, frame: wire.Frame) -> None:
        session = request.session
        if session.unsent:  # its route takes nothing: what is behind must not overtake what waits
            self._of(request).torn = True
        else:
            self._dispatch.send(session, frame)

    def _to_process(self, slot: Slot, frame: wire.Frame) -> None:
        if not slot.connected:
            return  # it says where it is when it is back
        if not slot.outgoing:
            self._dispatch.out.slots.append(slot)
        slot.outgoing.append(frame)

    def _cancel_attempt(self, request: Request, slot: Slot) -> None:
        """If it is still under way there."""
        if slot.inflight.get(request.delivery) is request:
            self._cancel(slot, request.delivery)

    def _cancel(self, slot: Slot, delivery: int) -> None:
        self._to_process(slot, wire.head(wire.CANCEL, slot.token, number=delivery))


def _begin(request: Request, stream: _Stream) -> None:
    stream.begun = True
    request.tick.pop(request, None)  # it may take as long as it likes


def _streams(request: Request) -> bool:
    return bool(request.frame) and request.frame[wire.FLAGS_AT] & wire.MORE != 0
