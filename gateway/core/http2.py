"""One HTTP/2 connection (RFC 9113): bytes in, requests of its streams and bytes out. Pure.

    bytes ──► frames, what they cost ──► h2: its books ──► this: requests, time, the end
              http2_frames.py            http2_books.py               │
    bytes ◄── whose turn it is ◄──────── answers ◄────────── streams ─┘
              http2_flow.py              http2_answers.py    http2_stream.py

Each stream is a request as one of HTTP/1 is (core/connection.py, whose three rules hold here).
"""

from __future__ import annotations

from math import inf

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from ...common.limits import INLINE_MAX
from .effects import Asked, Close, Gone, Rebuffed, Refused, Reset, StreamEffect, Write
from .http2_answers import Answers
from .http2_books import Books
from .http2_flow import Turns
from .http2_frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OF_FRAME,
    OF_RESET,
    OVERHEAD,
    RST_STREAM,
    SETTINGS,
    SMALL,
    Broken,
    Frame,
    Frames,
    Purse,
)
from .http2_head import check_trailers, read
from .http2_stream import Stream, Streams
from .requests import request_id as request_id_of
from .response import refusal
from .rules import Rejected
from .shared import LINGER_S, Shared
from .upload import Upload

_OF_FIELD = 32  # bytes that one counts more than it has (RFC 9113 6.5.2)


class Http2:
    """Most methods take the monotonic time and give effects to carry out, in order, before `answers.output` is sent."""

    def __init__(self, shared: Shared, now: float) -> None:
        self._limits = limits = shared.limits
        self._timeouts = timeouts = shared.timeouts
        self._open_spool = shared.open_spool
        self._new_id = shared.new_id
        self._streams_max = shared.streams
        head_max = limits.head + _OF_FIELD * limits.headers
        self._frames = Frames(head_max)
        self._purse = Purse(now)
        self._books = Books(head_max, shared.streams)
        self._turns = Turns(self._books, timeouts)
        self._streams = Streams()
        self.answers = Answers(shared, self._books, self._streams, self._turns, self._purse)
        self._idle = now + timeouts.idle
        self._highest = 0  # stream that was opened
        self._last: int | None = None  # stream that is served, since GOAWAY was sent
        self._leaving = False  # the client opens no more streams
        self._closed = False

    # ---- what the client does ---------------------------------------------------------------------------------------

    def received(self, data: bytes, now: float) -> list[StreamEffect]:
        if self._closed:
            return []
        effects: list[StreamEffect] = []
        try:
            for frame in self._frames.feed(data, now):
                self._frame(frame, effects, now)
        except Broken as broken:
            effects += self._break(broken.code)
        except ProtocolError as error:
            effects += self._break(error.error_code)
        return effects

    def lost(self) -> None:
        """There is no connection any more, perhaps without an `eof`: what waits in either direction is dropped."""
        self._end()

    def eof(self, now: float) -> list[StreamEffect]:
        """The client is gone: to go on it would have to say that it takes answers, by growing windows."""
        if self._closed:
            return []
        return [*map(Gone, self._streams), *self._goodbye()]

    def _frame(self, frame: Frame, effects: list[StreamEffect], now: float) -> None:
        self._purse.pay(self._cost(frame), now)
        if not self._frames.in_head:
            if frame.kind == GOAWAY:  # h2 would send nothing more
                self._client_leaves(frame)
                return
            if frame.kind > CONTINUATION:  # an extension
                return
            if frame.kind == RST_STREAM and self._is_idle(frame.stream):  # h2 passes over it
                raise Broken(ErrorCodes.PROTOCOL_ERROR)
            if frame.kind == SETTINGS:
                self._books.table_sizes(frame.data[OVERHEAD:])
        for event in self._books.receive_data(frame.data):
            self._event(event, effects, now)

    def _cost(self, frame: Frame) -> int:
        kind, number = frame.kind, frame.stream
        if kind == HEADERS and number > self._highest:
            return 0
        if kind == DATA and number in self._streams and (frame.size >= SMALL or frame.flags & END_STREAM):
            return 0
        return OF_RESET if kind == RST_STREAM else OF_FRAME

    def _is_idle(self, number: int) -> bool:
        """Nobody has opened it yet, or ever will: we push nothing."""
        return number > self._highest or number % 2 == 0

    def _client_leaves(self, frame: Frame) -> None:
        if frame.stream:
            raise Broken(ErrorCodes.PROTOCOL_ERROR)
        if frame.size < 8:
            raise Broken(ErrorCodes.FRAME_SIZE_ERROR)
        self._leaving = True

    def _event(self, event: Event, effects: list[StreamEffect], now: float) -> None:
        if isinstance(event, RequestReceived):
            assert event.stream_id is not None
            self._begins(event.stream_id, event.stream_ended is not None, effects, now)
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None and event.data is not None
            if event.flow_controlled_length:
                self._books.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream := self._streams.get(event.stream_id):
                self._more(stream, event.data, effects, now)
        elif isinstance(event, TrailersReceived):
            if stream := self._streams.get(event.stream_id or 0):
                try:
                    check_trailers(self._books.fields)
                except Rejected as rejected:
                    self._reject(stream, rejected, effects, now)
        elif isinstance(event, StreamEnded):
            if stream := self._streams.get(event.stream_id or 0):
                self._ends(stream, effects, now)
        elif isinstance(event, StreamReset):
            if stream := self._streams.get(event.stream_id or 0):
                self._drop(stream, effects)
        elif isinstance(event, WindowUpdated):
            if not event.stream_id:
                self._turns.room(now)
            elif stream := self._streams.get(event.stream_id):
                self._turns.room_of([stream], now)
        elif isinstance(event, RemoteSettingsChanged):
            self._books.keep_table_small()
            self._turns.room_of(self._streams.values(), now)

    # ---- requests ---------------------------------------------------------------------------------------------------

    def _begins(self, number: int, ended: bool, effects: list[StreamEffect], now: float) -> None:
        self._highest = number
        if self._last is not None or len(self._streams) >= self._streams_max:
            self._reset(number, ErrorCodes.REFUSED_STREAM, now)
            return
        found = self._books.fields
        method = "HEAD" if (b":method", b"HEAD") in found else "GET"  # of which no more may be known
        upload = Upload(self._open_spool, INLINE_MAX if self._streams.have_room() else 0)
        self._streams[number] = stream = Stream(number, method, upload, self._timeouts, now)
        self._idle = inf
        try:
            stream.head = read(((name, value) for name, value in found), self._limits)
            if (stream.head.length or 0) > self._limits.body:
                raise Rejected("body-size")
        except Rejected as rejected:
            self._reject(stream, rejected, effects, now)
            return
        if not ended:
            stream.grant(now)
            if stream.head.expects_continue:
                self._books.send_headers(number, [(b":status", b"100")])

    def _more(self, stream: Stream, data: bytes, effects: list[StreamEffect], now: float) -> None:
        if stream.asked:
            return
        try:
            stream.add(data, self._limits.body)
        except Rejected as rejected:
            self._reject(stream, rejected, effects, now)
            return
        self._streams.count(stream)
        stream.grant(now)

    def _ends(self, stream: Stream, effects: list[StreamEffect], now: float) -> None:
        stream.ended = True
        if stream.asked:  # it was refused
            self._dropped(stream)
            return
        try:
            effects.append(Asked(stream.id, stream.head, stream.whole()))
        except Rejected as rejected:
            self._reject(stream, rejected, effects, now)
            return
        self._streams.release(stream)

    def _dropped(self, stream: Stream) -> None:
        """What is still to come of its request is not waited for any more."""
        stream.deadline = inf
        if stream.is_empty:
            self.answers.close(stream)

    def _reject(self, stream: Stream, rejected: Rejected, effects: list[StreamEffect], now: float) -> None:
        """It is answered. What still comes of it is dropped: some clients read no answer before they have sent all."""
        if stream.asked:
            return
        stream.wants_no_more(inf if stream.ended else now + LINGER_S)
        self._streams.release(stream)
        head = stream.head if stream.has_head else None
        request_id = self._new_id() if head is None else request_id_of(head.headers, self._new_id)
        headers, body = refusal(rejected.status, rejected.sentence(self._limits), request_id)
        size = 0 if stream.head.method == "HEAD" else len(body)
        effects.append(Rebuffed(stream.id, Refused(rejected.status, size, request_id, head)))
        self._purse.pay(OF_RESET, now)
        self.answers.send(stream, rejected.status, headers, body)

    # ---- the end of a stream ----------------------------------------------------------------------------------------

    def _drop(self, stream: Stream, effects: list[StreamEffect]) -> None:
        """Its client is gone."""
        self._streams.close(stream)
        effects.append(Gone(stream.id))

    def _reset(self, number: int, code: ErrorCodes, now: float) -> None:
        self._books.reset_stream(number, code)
        self._purse.pay(OF_RESET, now)

    # ---- time -------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        if self._closed:
            return None
        first = min(self._idle, self._frames.since + self._timeouts.head, self._turns.patience.deadline)
        for stream in self._streams.values():
            first = min(first, stream.deadline, stream.patience.deadline)
        return None if first == inf else first

    def tick(self, now: float) -> list[StreamEffect]:
        if self._closed:
            return []
        if now >= self._turns.patience.deadline:
            return self._cut()
        number, come = self._frames.part_of_body()
        if now >= self._frames.since + self._timeouts.head and number not in self._streams:
            return self._break(ErrorCodes.ENHANCE_YOUR_CALM)
        if now >= self._idle:
            return self._goodbye()
        effects: list[StreamEffect] = []
        try:
            for stream in list(self._streams.values()):
                if now >= stream.patience.deadline:
                    self._reset(stream.id, ErrorCodes.CANCEL, now)
                    self._drop(stream, effects)
                elif now >= stream.deadline and stream.asked:
                    self._dropped(stream)
                elif now >= stream.deadline:
                    if stream.id == number:
                        stream.grant(now, come)
                    if now >= stream.deadline:
                        self._reject(stream, Rejected("body-rate"), effects, now)
        except Broken as broken:
            effects += self._break(broken.code)
        return effects

    # ---- the end of the connection ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """No further request: streams above the last one are refused, and after that it closes."""
        if self._last is None and not self._closed:
            self._last = self._highest
            self._goaway(ErrorCodes.NO_ERROR)

    def settled(self, now: float) -> list[StreamEffect]:
        """To be asked when the output is sent: whether it is over, or idle from now on."""
        if self._closed or self._streams:
            return []
        if self._last is not None or self._leaving:
            return self._goodbye()
        if self._idle == inf:
            self._idle = now + self._timeouts.idle
        return []

    def _goodbye(self) -> list[StreamEffect]:
        if self._last is None:
            self._goaway(ErrorCodes.NO_ERROR)
        if self._idle != inf:
            return self._end(LINGER_S)
        # The last answer is read.
        return self._end(self._timeouts.write + self._turns.unsent / self._timeouts.write_rate)

    def _break(self, code: ErrorCodes | int) -> list[StreamEffect]:
        self._goaway(code)
        return [*map(Gone, self._streams), *self._end(LINGER_S)]

    def _cut(self) -> list[StreamEffect]:
        gone = [*map(Gone, self._streams)]
        self._end()
        return [*gone, Reset()]

    def _end(self, within: float = 0.0) -> list[StreamEffect]:
        self._closed = True
        self._streams.close_all()
        self._turns.clear()
        self._frames.clear()
        return [Write(self._books.said()), Close(within)]

    def _goaway(self, code: ErrorCodes | int) -> None:
        self._books.goaway(self._highest if self._last is None else self._last, code)
