"""One HTTP/2 connection (RFC 9113): bytes in, requests of its streams and bytes out. Pure.

    frames ──► what they may cost ──► h2: state, windows, header compression ──► this: requests, bodies, time

h2 keeps the books of the protocol. It is not asked what a proper request is: for it one that is not ends the
connection, and behind a proxy that would be everybody's. Frames are cut out of the bytes here, too: so what a flood of
them costs is known before they are read, and none is waited for that is too large.

Each stream is a request as one of HTTP/1 is (core/connection.py, whose three rules hold here). What is to be sent waits
here until the client has room for it; `output` gives it out, a little of each stream in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
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
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError

from .connection import BANKED_S, UNREAD_MAX, Close, Refused, Reset, Timeouts, Write, Wrong
from .head import Fields, Head, Limits
from .http2_head import check_trailers, read
from .http2_stream import Patience, Stream
from .requests import request_id as request_id_of
from .response import RETRY_AFTER_S, Headers, fields
from .rules import Rejected
from .upload import INLINE_MAX, NoRoom, Spool, Upload

STREAMS_MAX = 100  # at once, of one connection: what RFC 9113 6.5.2 recommends at least
FRAME_MAX = 16384  # bytes, either way: the size that all must take
STREAM_WINDOW = 256 * 1024  # bytes of a body that may be on their way
CONNECTION_WINDOW = 1024 * 1024  # of all
BODIES_MAX = 1024 * 1024  # bytes of bodies of one connection in memory, either way; then they go into spools
BATCH = 64 * 1024  # bytes that `output` gives at a time
TABLE_MAX = 4096  # bytes of the headers that we remember for a client, whatever it wishes

# What a connection may cost beside its requests, in points: what a browser does in its worst second, several times.
POINTS = 10_000
POINTS_PER_S = 1_000
OF_FRAME = 10  # any that carries no request and next to no data: 1,000 at once, 100 a second
OF_RESET = 20  # of a stream, by either side: 500 at once, 50 a second
SMALL = 1024  # bytes of a piece of a body, from which on it costs nothing
EARNS = 4096  # bytes of an answer for which a client may say that it took them

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 7, 9
_END_STREAM, _END_HEADERS = 0x1, 0x4
_FIELD = 32  # bytes that a field counts more than it has (RFC 9113 6.5.2)
_UNINDEXED = frozenset([b"set-cookie", b"x-request-id"])  # secret, or never the same twice


class Asked(NamedTuple):
    """A proper and whole request, to be answered once. A spool is now the gateway's to close."""

    stream: int
    head: Head
    body: bytes | Spool


class Rebuffed(NamedTuple):
    """What came on this stream was refused, and answered."""

    stream: int
    refused: Refused


class Failed(NamedTuple):
    """The answer on this stream cannot be what it meant; it has ended."""

    stream: int
    wrong: Wrong


class Gone(NamedTuple):
    """Nobody waits for the answer on this stream."""

    stream: int


Effect = Asked | Rebuffed | Failed | Gone | Write | Close | Reset


class Broken(Exception):
    """The connection cannot go on."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code)
        self.code = code


class _Decoder:
    """Between h2 and header compression: the fields of the last head are for us, h2 sees none."""

    def __init__(self, most: int) -> None:
        self._decoder = Decoder(most)
        self.fields: list[HeaderTuple] = []

    def decode(self, data: bytes, raw: bool = False) -> list[HeaderTuple]:
        try:
            self.fields = list(self._decoder.decode(data, raw=True))
        except OversizedHeaderListError:
            raise Broken(ErrorCodes.ENHANCE_YOUR_CALM) from None
        except HPACKError:
            raise Broken(ErrorCodes.COMPRESSION_ERROR) from None
        return []


class _Books(H2Connection):
    MAX_CLOSED_STREAMS = 256  # that are known to be closed: what comes late for others is an error


class Http2:
    """Every method takes the monotonic time; most give effects to carry out, in order, before `output` is sent."""

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        now: float,
        date: Callable[[], bytes],
        open_spool: Callable[[], Spool],
        new_id: Callable[[], str] = lambda: "-",
        streams_max: int = STREAMS_MAX,
    ) -> None:
        """As those of core/connection.py. `streams_max`: at once."""
        self._limits = limits
        self._timeouts = timeouts
        self._date = date
        self._open_spool = open_spool
        self._new_id = new_id
        self._streams_max = streams_max
        self._streams: dict[int, Stream] = {}
        self._ready: deque[Stream] = deque()  # with something to send, and room for it
        self._rooms: list[int] = []  # streams whose last piece has left
        self._buffer = bytearray()
        self._own = bytearray()  # frames that h2 knows nothing of
        self._started = False  # its preface has come
        self._introduced = False  # and its settings
        self._block = 0  # bytes of a head whose end has not come
        self._partial = inf  # when the first byte came of what is not whole yet
        self._idle = now + timeouts.idle
        self._points: float = POINTS
        self._points_at = now
        self._blocked = False
        self._unsent = 0  # bytes since it was blocked the last time
        self._patience = Patience(timeouts)
        self._held = 0  # bytes of bodies in memory
        self._highest = 0  # stream that was opened
        self._last: int | None = None  # stream that is served, since GOAWAY was sent
        self._leaving = False  # the client opens no more streams
        self._closed = False
        self._head_max = limits.head + _FIELD * limits.headers
        self._decoder = _Decoder(2 * self._head_max)
        self._books = self._opened()

    def _opened(self) -> H2Connection:
        config = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        books = _Books(config)
        books.decoder = self._decoder  # type: ignore[assignment]
        said = {
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_FRAME_SIZE: FRAME_MAX,
            SettingCodes.MAX_HEADER_LIST_SIZE: self._head_max,
            SettingCodes.MAX_CONCURRENT_STREAMS: self._streams_max,
        }
        books.local_settings = Settings(client=False, initial_values=said)
        books.initiate_connection()
        # The same, but for the streams: one too many is refused here, it does not end the connection.
        more = {SettingCodes.MAX_CONCURRENT_STREAMS: 2**31 - 1}
        books.local_settings = Settings(client=False, initial_values=said | more)
        books.max_inbound_frame_size = FRAME_MAX
        books.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        return books

    # ---- what the client does ---------------------------------------------------------------------------------------

    def received(self, data: bytes, now: float) -> list[Effect]:
        if self._closed:
            return []
        self._buffer += data
        effects: list[Effect] = []
        try:
            while not self._closed and (frame := self._next_frame()):
                self._frame(frame, effects, now)
                if not self._block:
                    self._partial = inf
            if self._buffer or self._block:
                self._partial = min(self._partial, now)
        except Broken as broken:
            self._break(broken.code, effects)
        except ProtocolError as error:
            self._break(error.error_code, effects, said=True)
        return effects

    def lost(self) -> None:
        """There is no connection any more, perhaps without an `eof`: what waits in either direction is dropped."""
        self._end()

    def eof(self, now: float) -> list[Effect]:
        """The client is gone: who still wanted answers would have to say that he has taken them."""
        if self._closed:
            return []
        effects: list[Effect] = [Gone(number) for number in self._streams]
        return effects + self._goodbye()

    def _next_frame(self) -> bytes:
        """b"": it has not come yet. Broken: it will not be proper, whatever comes."""
        buffer = self._buffer
        if not self._started:
            if not _PREFACE.startswith(buffer[: len(_PREFACE)]):
                raise Broken(ErrorCodes.PROTOCOL_ERROR)
            if len(buffer) < len(_PREFACE):
                return b""
            self._started = True
            self._books.receive_data(_PREFACE)
            del buffer[: len(_PREFACE)]
        if len(buffer) < 9:
            return b""
        size = 9 + (buffer[0] << 16 | buffer[1] << 8 | buffer[2])
        if size > 9 + FRAME_MAX:
            raise Broken(ErrorCodes.FRAME_SIZE_ERROR)
        if len(buffer) < size:
            return b""
        frame = bytes(buffer[:size])
        del buffer[:size]
        return frame

    def _frame(self, frame: bytes, effects: list[Effect], now: float) -> None:
        kind, flags, number = frame[3], frame[4], int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF
        if not self._introduced:
            if kind != _SETTINGS or flags & 1:
                raise Broken(ErrorCodes.PROTOCOL_ERROR)
            self._introduced = True
        self._pay(self._cost(kind, flags, number, len(frame) - 9), now)
        if kind in (_HEADERS, _CONTINUATION):
            self._block = 0 if flags & _END_HEADERS else self._block + len(frame)
            if self._block > self._head_max:
                raise Broken(ErrorCodes.ENHANCE_YOUR_CALM)
        elif not self._block:
            if kind == _GOAWAY:  # h2 would send nothing more
                self._client_leaves(number, len(frame) - 9)
                return
            if kind > _CONTINUATION:  # an extension
                return
        for event in self._books.receive_data(frame):
            self._event(event, effects, now)

    def _client_leaves(self, number: int, size: int) -> None:
        if number:
            raise Broken(ErrorCodes.PROTOCOL_ERROR)
        if size < 8:
            raise Broken(ErrorCodes.FRAME_SIZE_ERROR)
        self._leaving = True

    def _cost(self, kind: int, flags: int, number: int, size: int) -> int:
        if kind == _HEADERS and number > self._highest:
            return 0
        if kind == _DATA and number in self._streams and (size >= SMALL or flags & _END_STREAM):
            return 0
        return OF_RESET if kind == _RST_STREAM else OF_FRAME

    def _pay(self, cost: int, now: float) -> None:
        if cost:
            self._points = min(POINTS, self._points + (now - self._points_at) * POINTS_PER_S) - cost
            self._points_at = now
            if self._points < 0:
                raise Broken(ErrorCodes.ENHANCE_YOUR_CALM)

    def _event(self, event: Event, effects: list[Effect], now: float) -> None:
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
                    check_trailers(self._decoder.fields)
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
                if not self._blocked:
                    self._patience.goes_on(now)
            elif stream := self._streams.get(event.stream_id):
                self._has_room(stream, now)
        elif isinstance(event, RemoteSettingsChanged):
            self._books.encoder.header_table_size = min(self._books.encoder.header_table_size, TABLE_MAX)
            for stream in self._streams.values():
                self._has_room(stream, now)

    # ---- requests ---------------------------------------------------------------------------------------------------

    def _begins(self, number: int, ended: bool, effects: list[Effect], now: float) -> None:
        self._highest = number
        if self._last is not None or len(self._streams) >= self._streams_max:
            self._reset(number, ErrorCodes.REFUSED_STREAM, now)
            return
        inline = INLINE_MAX if self._held < BODIES_MAX else 0
        upload = Upload(self._open_spool, inline)
        method = "HEAD" if (b":method", b"HEAD") in self._decoder.fields else "GET"
        stream = Stream(number, _NO_HEAD._replace(method=method), upload, self._timeouts, now)
        stream.ended = ended
        self._streams[number] = stream
        self._idle = inf
        try:
            stream.head = read(((name, value) for name, value in self._decoder.fields), self._limits)
            if ended and stream.head.length:
                raise Rejected("other-length")
        except Rejected as rejected:
            self._reject(stream, rejected, effects, now)
            return
        if not ended:
            self._grant(stream, now)
            if stream.head.expects_continue:
                self._books.send_headers(number, [(b":status", b"100")])

    def _more(self, stream: Stream, data: bytes, effects: list[Effect], now: float) -> None:
        upload = stream.upload
        if stream.asked or upload is None:
            return
        try:
            if upload.size + len(data) > self._limits.body:
                raise Rejected("body-size")
            if stream.head.length is not None and upload.size + len(data) > stream.head.length:
                raise Rejected("other-length")
            self._add(upload, data)
        except Rejected as rejected:
            self._reject(stream, rejected, effects, now)
            return
        self._grant(stream, now)

    def _add(self, upload: Upload, data: bytes) -> None:
        self._held -= upload.in_memory
        try:
            upload.add(data)
        finally:
            self._held += upload.in_memory

    def _grant(self, stream: Stream, now: float) -> None:
        """Time for the rest of its body."""
        size = stream.upload.size if stream.upload is not None else 0
        earned = stream.since + self._timeouts.body + size / self._timeouts.body_rate
        stream.deadline = min(earned, now + self._timeouts.body + BANKED_S)

    def _ends(self, stream: Stream, effects: list[Effect], now: float) -> None:
        stream.ended = True
        upload, length = stream.upload, stream.head.length
        if stream.asked or upload is None:
            return
        if length is not None and length != upload.size:
            self._reject(stream, Rejected("other-length"), effects, now)
            return
        stream.asked = True
        stream.deadline = inf
        stream.upload = None
        self._held -= upload.in_memory
        effects.append(Asked(stream.id, stream.head, _body(upload)))

    def _reject(self, stream: Stream, rejected: Rejected, effects: list[Effect], now: float) -> None:
        """It is answered, and the rest of it is not wanted."""
        if stream.asked:
            return
        head, reason = stream.head, rejected.reason.format_map(self._limits._asdict())
        known = head.target != b""
        request_id = request_id_of(head.headers, self._new_id) if known else self._new_id()
        body = f"{reason}\n".encode()
        size = 0 if head.method == "HEAD" else len(body)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-request-id", request_id.encode())]
        if rejected.status == 503:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        self._release(stream)
        effects.append(Rebuffed(stream.id, Refused(rejected.status, size, request_id, head if known else None)))
        stream.asked = True
        stream.deadline = inf
        self._pay(OF_RESET, now)
        self._send(stream, rejected.status, headers, body, head.method)

    # ---- what the gateway does --------------------------------------------------------------------------------------

    def answered(self, number: int, status: int, headers: Headers, body: bytes, now: float) -> list[Effect]:
        """The answer on this stream. One that cannot be sent as it is becomes a 500."""
        stream = self._streams.get(number)
        if stream is None:
            return []
        try:
            self._send(stream, status, headers, body, stream.head.method)
        except (TypeError, ValueError):
            self._send_error(stream)
        return []

    def begin(self, number: int, status: int, headers: Headers, now: float) -> list[Effect]:
        """The head of an answer whose body comes in pieces."""
        stream = self._streams.get(number)
        if stream is None:
            return []
        try:
            found, framing = fields(stream.head.method, status, headers, None, date=self._date())
        except (TypeError, ValueError) as error:
            self._send_error(stream)
            return [Failed(number, Wrong(str(error), 500))]
        stream.framing = framing
        self._send_fields(stream, found, end=False)
        return []

    def piece(self, number: int, data: bytes, now: float) -> list[Effect]:
        stream = self._streams.get(number)
        framing = stream.framing if stream is not None else None
        if stream is None or framing is None or not framing.has_body or not data:
            return []
        if framing.left is not None:
            if len(data) > framing.left:
                wrong = Failed(number, Wrong("the answer is longer than its Content-Length"))
                return [wrong, *self.abort(number, now)]
            framing.left -= len(data)
        self._queue(stream, data)
        return []

    def end(self, number: int, now: float) -> list[Effect]:
        """Its body was whole."""
        stream = self._streams.get(number)
        framing = stream.framing if stream is not None else None
        if stream is None or framing is None:
            return []
        if framing.has_body and framing.left:
            wrong = Failed(number, Wrong("the answer is shorter than its Content-Length"))
            return [wrong, *self.abort(number, now)]
        stream.over = True
        if stream.is_empty:
            self._books.end_stream(number)
            self._finish(stream)
        return []

    def abort(self, number: int, now: float) -> list[Effect]:
        """There will be no more of its body: whoever reads it sees that it is not whole."""
        stream = self._streams.get(number)
        if stream is not None:
            self._books.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
            self._forget(stream)
        return []

    def takes(self, number: int) -> bool:
        """Whether a piece would leave at once, or be in nobody's way. It becomes true again with `rooms`."""
        stream = self._streams.get(number)
        return stream is None or (stream.is_empty and not self._blocked)

    def rooms(self) -> list[int]:
        """Streams that take more, since this was asked the last time."""
        rooms, self._rooms = self._rooms, []
        return rooms

    def blocked(self, now: float) -> None:
        """The kernel took only a part of the output. Until `written`, there is none."""
        self._blocked = True
        self._patience.goes_on(now)
        self._patience.stalls(now, self._unsent)

    def written(self, now: float) -> None:
        """All of it has left."""
        self._blocked = False
        self._unsent = 0
        self._patience.goes_on(now)
        self._rooms += [each.id for each in self._streams.values() if each.framing and not each.over and each.is_empty]

    def drain(self) -> list[Effect]:
        """No further request: streams above the last one are refused, and after that it closes."""
        if self._last is None and not self._closed:
            self._last = self._highest
            self._goaway(ErrorCodes.NO_ERROR)
        return []

    # ---- what is sent -----------------------------------------------------------------------------------------------

    def output(self, now: float) -> bytes:
        """The next bytes to send; b"": there are none, or no room for any."""
        if self._blocked:
            return b""
        left = BATCH
        while left > 0 and self._ready:
            if self._books.outbound_flow_control_window <= 0:
                self._patience.stalls(now)
                break
            stream = self._ready.popleft()
            size = self._send_some(stream, now)
            left -= size
            if size and not stream.is_empty:
                self._ready.append(stream)
        data = self._bytes()
        self._unsent = min(self._unsent + len(data), UNREAD_MAX)
        return data

    def _send_some(self, stream: Stream, now: float) -> int:
        """Bytes that left; 0: it has no room."""
        if stream.id not in self._streams:
            return 0
        size = min(self._books.local_flow_control_window(stream.id), FRAME_MAX)
        if size <= 0:
            stream.patience.stalls(now)
            return 0
        try:
            data = stream.next(size)
        except OSError:  # the disk that it waited on: whoever reads it sees that it is not whole
            self._books.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
            self._forget(stream)
            return 0
        size = len(data)
        stream.patience.goes_on(now)
        stream.patience.took(size)
        self._patience.took(size)
        self._points = min(POINTS, self._points + size * OF_FRAME / EARNS)
        if stream.framing is None:
            self._held -= size
        last = stream.over and stream.is_empty
        self._books.send_data(stream.id, data, end_stream=last)
        if last:
            self._finish(stream)
        elif stream.is_empty:
            self._rooms.append(stream.id)
        return size

    def _send(self, stream: Stream, status: int, headers: Headers, body: bytes, method: str) -> None:
        if not isinstance(body, bytes):
            raise ValueError(f"no response: body of type {type(body).__name__}")
        found, framing = fields(method, status, headers, len(body), date=self._date())
        body = body if framing.has_body else b""
        self._send_fields(stream, found, end=not body)
        stream.over = True
        if not body:
            self._finish(stream)
            return
        if self._held + len(body) > BODIES_MAX and len(body) > FRAME_MAX:
            try:
                stream.spool = self._open_spool()
                stream.spool.write(body)
                stream.framing = framing  # it is not counted
                self._ready.append(stream)
                return
            except NoRoom:
                stream.spool = None
        self._held += len(body)
        self._queue(stream, body)

    def _send_error(self, stream: Stream) -> None:
        body = b"the application gave an answer that cannot be sent\n"
        self._send(stream, 500, [(b"content-type", b"text/plain; charset=utf-8")], body, stream.head.method)

    def _send_fields(self, stream: Stream, found: Iterable[tuple[bytes, bytes]], end: bool) -> None:
        marked = [NeverIndexedHeaderTuple(*field) if field[0] in _UNINDEXED else HeaderTuple(*field) for field in found]
        self._books.send_headers(stream.id, marked, end_stream=end)

    def _queue(self, stream: Stream, data: bytes) -> None:
        if stream.is_empty:
            self._ready.append(stream)
        stream.waiting.append(data)

    def _has_room(self, stream: Stream, now: float) -> None:
        if stream.patience.deadline != inf and not stream.is_empty:
            if self._books.local_flow_control_window(stream.id) > 0 or self._books.outbound_flow_control_window <= 0:
                stream.patience.goes_on(now)
                self._ready.append(stream)

    # ---- the end of a stream ----------------------------------------------------------------------------------------

    def _finish(self, stream: Stream) -> None:
        """Its answer is sent. What is left of its request is not wanted (RFC 9113 8.1)."""
        if not stream.ended:
            self._books.reset_stream(stream.id, ErrorCodes.NO_ERROR)
        self._forget(stream)

    def _drop(self, stream: Stream, effects: list[Effect]) -> None:
        """Its client is gone."""
        self._forget(stream)
        effects.append(Gone(stream.id))

    def _reset(self, number: int, code: ErrorCodes, now: float) -> None:
        self._books.reset_stream(number, code)
        self._pay(OF_RESET, now)

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._release(stream)
        if stream.framing is None:
            self._held -= sum(map(len, stream.waiting))
        stream.close()

    def _release(self, stream: Stream) -> None:
        upload, stream.upload = stream.upload, None
        if upload is not None:
            self._held -= upload.in_memory
            upload.close()

    # ---- time -------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        if self._closed:
            return None
        first = min(self._idle, self._partial + self._timeouts.head, self._patience.deadline)
        for stream in self._streams.values():
            first = min(first, stream.deadline, stream.patience.deadline)
        return None if first == inf else first

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self._closed:
            return effects
        if now >= self._patience.deadline:
            return self._cut(effects)
        if now >= self._partial + self._timeouts.head and not self._in_body():
            self._break(ErrorCodes.ENHANCE_YOUR_CALM, effects)
            return effects
        if now >= self._idle:
            return self._goodbye()
        try:
            for stream in list(self._streams.values()):
                if now >= stream.patience.deadline:
                    self._reset(stream.id, ErrorCodes.CANCEL, now)
                    self._drop(stream, effects)
                elif now >= stream.deadline and not self._earns(stream, now):
                    self._reject(stream, Rejected("body-rate"), effects, now)
        except Broken as broken:
            self._break(broken.code, effects)
        return effects

    def _in_body(self) -> Stream | None:
        """Whose body the frame is of that is not whole yet."""
        buffer = self._buffer
        if len(buffer) < 9 or buffer[3] != _DATA or self._block:
            return None
        return self._streams.get(int.from_bytes(buffer[5:9], "big") & 0x7FFFFFFF)

    def _earns(self, stream: Stream, now: float) -> bool:
        """By what has come of a frame that is not whole."""
        if self._in_body() is not stream or stream.upload is None:
            return False
        size = stream.upload.size + len(self._buffer) - 9
        stream.deadline = stream.since + self._timeouts.body + size / self._timeouts.body_rate
        return now < stream.deadline

    # ---- the end of the connection ----------------------------------------------------------------------------------

    def settled(self, now: float) -> list[Effect]:
        """To be asked when the output is sent: whether it is over, or idle from now on."""
        if self._closed or self._streams:
            return []
        if self._last is not None or self._leaving:
            return self._goodbye()
        if self._idle == inf:
            self._idle = now + self._timeouts.idle
        return []

    def _goodbye(self) -> list[Effect]:
        if self._last is None:
            self._goaway(ErrorCodes.NO_ERROR)
        if self._idle != inf:
            return self._end(self._timeouts.linger)
        return self._end(self._timeouts.write + self._unsent / self._timeouts.write_rate)  # the last answer is read

    def _break(self, code: ErrorCodes | int, effects: list[Effect], said: bool = False) -> None:
        if not said:
            self._goaway(code)
        effects += [Gone(number) for number in self._streams]
        effects += self._end(self._timeouts.linger)

    def _cut(self, effects: list[Effect]) -> list[Effect]:
        effects += [Gone(number) for number in self._streams]
        self._end()
        return [*effects, Reset()]

    def _end(self, within: float = 0.0) -> list[Effect]:
        self._closed = True
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self._ready.clear()
        self._buffer.clear()
        return [Write(self._bytes()), Close(within)]

    def _bytes(self) -> bytes:
        data, self._own = self._books.data_to_send() + bytes(self._own), bytearray()
        return data

    def _goaway(self, code: ErrorCodes | int) -> None:
        """h2's own would be the last that it sends."""
        last = self._highest if self._last is None else self._last
        payload = last.to_bytes(4, "big") + int(code).to_bytes(4, "big")
        self._own += len(payload).to_bytes(3, "big") + bytes([_GOAWAY, 0, 0, 0, 0, 0]) + payload


def _body(upload: Upload) -> bytes | Spool:
    """A small one is bytes, wherever it waited."""
    body = upload.whole()
    if isinstance(body, bytes) or body.size > INLINE_MAX:
        return body
    try:
        return body.read(0, body.size)
    finally:
        body.close()


_NO_HEAD = Head("GET", b"", "2", Fields(), b"", None, False, True, False)
