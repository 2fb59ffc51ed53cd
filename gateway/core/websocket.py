"""One WebSocket behind its handshake (RFC 6455): bytes in, messages and bytes out. Pure.

    OPEN ──► CLOSING ──► CLOSED      we said close, and wait for the client's word; or the client did, or broke a rule

The frames are wsproto's business. What is ours: how large a message may be, who is still alive, when it is over. It is
driven as core/connection.py is, whose place it takes.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from enum import Enum
from hashlib import sha1
from math import inf
from typing import Any, NamedTuple
from zlib import error as ZlibError

from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ...common.streams import WINDOW
from .effects import Came, Close, Effect, Ended, Reset, Write
from .response import Headers, switching
from .shared import LINGER_S, UNREAD_MAX, Patience

GOING_AWAY, NO_CODE, LOST, TOO_LARGE, FAILED = 1001, 1005, 1006, 1009, 1011  # RFC 6455 7.4.1

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OURS = (b"sec-websocket-", b"upgrade")  # how names of headers begin that are ours to say
BATCH = WINDOW  # bytes of messages; with more than that `hold` follows, for no more may be under way to a process
CLOSE_S = 5.0  # for the client's part of the closing handshake
_PONGS_MAX = 16  # that are owed; of a flood of pings only the last are answered (RFC 6455 5.5.3)
_PADDING = 1  # byte, behind the last block of a compressed message (RFC 7692 7.2.3.4)
_SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}  # codes that may stand in a frame


class Terms(NamedTuple):
    """Seconds, bytes, bytes a second."""

    message: int  # the largest that a client may send
    ping: float  # of silence, until it is asked whether it is there
    pong: float  # more of it, until it is not
    write: float  # of grace once the kernel takes no more, then `write_rate` on average
    write_rate: int


class State(Enum):
    OPEN = "open"
    CLOSING = "closing"  # we have said so
    CLOSED = "closed"


_OPEN, _CLOSING, _CLOSED = State


class _TooLarge(Exception):
    pass


class WebSocket:
    """Every method gives the effects to carry out, in order, and takes the monotonic time if that matters to it."""

    __slots__ = (
        "held",
        "size",
        "state",
        "_asked_at",
        "_closing_until",
        "_frames",
        "_heard_at",
        "_message",
        "_patience",
        "_pongs",
        "_terms",
        "_text",
        "_unread",
    )

    def __init__(self, terms: Terms, now: float, extensions: list[Extension] | None = None) -> None:
        self.state = _OPEN
        self.held = False  # who takes its messages has no room
        self.size = 0  # bytes that were written
        self._terms = terms
        self._frames = Frames(ConnectionType.SERVER, extensions)
        self._message = bytearray()  # what has come of the one that comes in parts
        self._text = False  # it is one of text
        self._pongs: deque[bytes] = deque(maxlen=_PONGS_MAX)
        self._heard_at = now
        self._asked_at = inf  # when it was pinged, and it has said nothing since
        self._closing_until = inf
        self._patience = Patience(terms.write, terms.write_rate)
        self._unread = 0

    # ---- what the client does ---------------------------------------------------------------------------------------

    def received(self, data: bytes, now: float) -> list[Effect]:
        if self.state is _CLOSED:
            return []
        self._heard_at, self._asked_at = now, inf
        self._frames.receive_data(data)
        return [] if self.held and self.state is _OPEN else self._read()

    def _read(self) -> list[Effect]:
        """What has come; of messages no more than `BATCH`, since a few bytes may be many when they are compressed."""
        items: list[str | bytes] = []
        end: list[Effect] = []
        size = 0
        try:
            for event in self._frames.events():
                if isinstance(event, CloseConnection):
                    end = self._closed_by(event)
                elif isinstance(event, Ping):
                    self._pongs.append(bytes(event.payload))
                elif isinstance(event, Message) and self.state is _OPEN and self._assemble(event, items):
                    size += len(items[-1])
                    if size > BATCH:
                        break
        except _TooLarge:
            end = self._fail(TOO_LARGE, f"a message has {self._terms.message} bytes at most")
        effects: list[Effect] = [Came(items)] if items else []
        if self.state is _OPEN:
            effects += self._answer_pings()
        return effects + end

    def eof(self, now: float) -> list[Effect]:
        """This is no proper end: a client that is done says so in a frame."""
        return self._lost(Close())

    def lost(self) -> None:
        """There is no connection any more: what came of a message is dropped."""
        self._end()

    @property
    def reads(self) -> bool:
        """Whether more bytes are wanted. It becomes true again when `held` is taken back."""
        return not self.held or self.state is not _OPEN

    # ---- what the service does --------------------------------------------------------------------------------------

    def say(self, item: str | bytes) -> list[Effect]:
        if self.state is not _OPEN:
            return []
        return [self._send(TextMessage(item) if isinstance(item, str) else BytesMessage(item))]

    def close(self, code: int, reason: str, now: float) -> list[Effect]:
        """The last thing that is said. A code that may not stand in a frame becomes 1011; 1005 stands for no code."""
        if self.state is not _OPEN:
            return []
        self.state = _CLOSING
        self._closing_until = now + CLOSE_S
        self._message.clear()
        if code == NO_CODE:
            return [self._send(CloseConnection(CloseReason.NO_STATUS_RCVD))]
        return [self._send(CloseConnection(code if code in _SENDABLE else FAILED, reason))]

    @property
    def takes(self) -> bool:
        """Whether what is said would leave at once. It becomes true again with `written`."""
        return self._patience.deadline == inf

    def blocked(self, now: float) -> list[Effect]:
        """The kernel took only a part of what was written."""
        self._patience.stalls(now, self._unread)
        return []

    def written(self, now: float) -> list[Effect]:
        """All that was written has left."""
        self._patience.goes_on(now)
        self._unread = 0
        self._heard_at, self._asked_at = now, inf  # it reads
        if self.state is _CLOSING:
            self._closing_until = now + CLOSE_S
        return self._answer_pings() if self.state is _OPEN else []

    def drain(self) -> list[Effect]:
        """It goes on until it is told to end."""
        return []

    # ---- time -------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        if self.state is _CLOSED:
            return None
        due = min(self._closing_until, self._ping_due()) if self.takes else self._patience.deadline
        return None if due == inf else due

    def _ping_due(self) -> float:
        """When it is to be pinged, or given up. Who is not read, or does not read, cannot answer."""
        if self.state is not _OPEN or self.held or not self.takes:
            return inf
        terms = self._terms
        return self._heard_at + terms.ping if self._asked_at == inf else self._asked_at + terms.pong

    def tick(self, now: float) -> list[Effect]:
        if self.state is _CLOSED:
            return []
        if not self.takes:
            return self._lost(Reset()) if now >= self._patience.deadline else []
        if now >= self._closing_until:
            return self._lost(Close())
        if now < self._ping_due():
            return []
        if self._asked_at != inf:
            return self._lost(Reset())
        self._asked_at = now
        return [self._send(Ping())]

    def hold(self, held: bool, now: float) -> list[Effect]:
        """Whether to read no more for now. Its silence meanwhile is our doing."""
        self.held = held
        self._heard_at, self._asked_at = now, inf
        return [] if held or self.state is not _OPEN else self._read()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _assemble(self, event: Message[Any], items: list[str | bytes]) -> bool:
        """Whether one is whole now. Raises _TooLarge, before there is more of it in memory than that."""
        data, whole = self._message, event.message_finished
        if not data:
            self._text = isinstance(event, TextMessage)
            if whole and len(event.data) * (4 if self._text else 1) <= self._terms.message:
                items.append(event.data if self._text else bytes(event.data))
                return True
        data += event.data.encode() if self._text else event.data
        if len(data) > self._terms.message:
            raise _TooLarge
        if whole:
            items.append(data.decode() if self._text else bytes(data))
            self._message = bytearray()  # and not what a large one had needed
        return whole

    def _closed_by(self, event: CloseConnection) -> list[Effect]:
        """The client's last frame; or one that wsproto says when a rule was broken."""
        if self._frames.state not in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            no_text = event.code == CloseReason.INVALID_FRAME_PAYLOAD_DATA  # wsproto says where in a piece that came
            return self._fail(int(event.code), "no UTF-8" if no_text else event.reason or "")
        if self._end():
            return [Close(LINGER_S)]
        code, reason = event.code, event.reason or ""
        return [Ended(int(code), reason), self._send(CloseConnection(code)), Close(LINGER_S)]

    def _fail(self, code: int, reason: str) -> list[Effect]:
        """It broke a rule; it is told which, and nothing behind it is read."""
        if self._end():
            return [Close()]
        return [Ended(code, reason), self._send(CloseConnection(code, reason)), Close(LINGER_S)]

    def _lost(self, end: Close | Reset) -> list[Effect]:
        return [end] if self._end() else [Ended(LOST, ""), end]

    def _end(self) -> bool:
        """Whether we had said before that it is over."""
        told, self.state = self.state is not _OPEN, _CLOSED
        self._message.clear()
        return told

    def _answer_pings(self) -> list[Effect]:
        if not self._pongs or not self.takes:
            return []
        frames = b"".join(bytes(self._frames.send(Pong(payload))) for payload in self._pongs)
        self._pongs.clear()
        return [self._write(frames)]

    def _send(self, event: Event) -> Write:
        return self._write(bytes(self._frames.send(event)))

    def _write(self, data: bytes) -> Write:
        size = len(data)
        self.size += size
        self._unread = max(size, min(self._unread + size, UNREAD_MAX))
        return Write(data)


# ---- the handshake --------------------------------------------------------------------------------------------------


def accepted(key: bytes, headers: Headers, subprotocol: str | None, extensions: str, date: bytes) -> bytes:
    """The answer after which it is a WebSocket. AttributeError, TypeError, ValueError: it cannot be sent."""
    said = [(name, value) for name, value in headers if not name.lower().startswith(_OURS)]
    said.append((b"Sec-WebSocket-Accept", b64encode(sha1(key + _GUID, usedforsecurity=False).digest())))
    if subprotocol is not None:
        said.append((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
    if extensions:
        said.append((b"Sec-WebSocket-Extensions", extensions.encode("ascii")))
    return switching(said, b"websocket", date=date)


def agreed(offers: bytes, most: int) -> tuple[list[Extension], str]:
    """The first offer of permessage-deflate that can be taken, and what is said of it. `most`: bytes of a message."""
    for offer in offers.decode("latin-1").split(","):
        if offer.partition(";")[0].strip().lower() != PerMessageDeflate.name:
            continue
        deflate = _Deflate(most)
        try:
            parameters = deflate.accept(offer)
        except ValueError:  # a number that is none
            continue
        if isinstance(parameters, str):
            return [deflate], f"{deflate.name}; {parameters}"
    return [], ""


class _Deflate(PerMessageDeflate):
    """Nothing is kept from one message to the next: that would be 300 KiB for each connection that idles."""

    def __init__(self, most: int) -> None:
        super().__init__(client_no_context_takeover=True, server_no_context_takeover=True)
        self._most = most

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """A control frame may stand within a message (RFC 6455 5.4), and does not say whether that is compressed."""
        if opcode.iscontrol() and not rsv.rsv1:
            self._inbound_is_compressible = False
            return RsvBits(True, False, False)
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """A few bytes may stand for a thousand times as many."""
        if not self._inbound_compressed or not self._inbound_is_compressible:
            return data
        assert self._decompressor is not None
        try:
            plain = self._decompressor.decompress(data, self._most + 1)
        except ZlibError:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if len(self._decompressor.unused_data) > _PADDING:  # it would be kept, however much comes
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return CloseReason.MESSAGE_TOO_BIG if self._decompressor.unconsumed_tail else plain

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        return super().frame_inbound_complete(proto, fin) if self._inbound_is_compressible else None
