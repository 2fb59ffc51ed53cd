"""One WebSocket as an ASGI application sees it; its two streams are those of docs/HTTP.md."""

from __future__ import annotations

import asyncio
from typing import Any

from msgpack import Unpacker, packb

from ..common.limits import WEBSOCKET_MESSAGE_MAX
from .async_streams import AsyncStream
from .context import Context
from .core.streams import Abandoned
from .http_service import BadAnswer, as_bytes, begun, header, headers_of, opening, tell

Message = dict[str, Any]

CONNECTING, OPEN, REFUSING, CLOSED = range(4)
_ANSWERING = (CONNECTING, REFUSING)  # the handshake

NORMAL, NO_CODE, LOST, RESTART = 1000, 1005, 1006, 1012  # RFC 6455 section 7.4, and its registry


class WebSocket:
    """`over`: the application has closed or refused it, or has ended."""

    __slots__ = (
        "over",
        "_answer",
        "_connect",
        "_end",
        "_request_id",
        "_state",
        "_opening",
        "_stream",
        "_items",
    )

    def __init__(self, ctx: Context, known_as: str) -> None:
        if ctx.stream is None:
            raise ValueError("a WebSocket needs a caller that streams")
        assert ctx.answer is not None
        self.over = False
        self._answer = ctx.answer
        self._stream: AsyncStream = ctx.stream
        self._request_id = known_as
        self._state = CONNECTING
        self._connect = True  # websocket.connect is still to be told
        self._end: Message | None = None  # the disconnect, once it is known
        self._opening = b""  # of a refusal, until the first bytes of its body
        self._items = Unpacker(
            raw=False, max_buffer_size=WEBSOCKET_MESSAGE_MAX + _HEAD_MAX, max_array_len=2, max_map_len=0, max_ext_len=0
        )

    # ---- what comes --------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        if self._connect:
            self._connect = False
            return {"type": "websocket.connect"}
        stream = self._stream
        while self._end is None and self._state in _ANSWERING and not stream.abandoned and not stream.leaving:
            await stream.changed()
        if self._end is None and stream.leaving:
            self._end = _disconnect(RESTART, "the service restarts")
        return self._end or await self._message()

    async def _message(self) -> Message:
        """The next message; after the last one the disconnect."""
        while self._end is None:
            try:
                for item in self._items:
                    return self._came(item)
                piece = await self._stream.read(or_leave=True)
                if self._stream.leaving:
                    self._end = _disconnect(RESTART, "the service restarts")
                elif not piece:
                    self._end = self._end or _disconnect(LOST)
                self._items.feed(piece)
            except Abandoned:  # if it was not closed here meanwhile, by another task
                self._end = self._end or _disconnect(LOST)
            except Exception as error:  # msgpack raises eight unrelated types on hostile bytes
                self._stream.give_up(f"its caller sent what is no WebSocket message: {error!r:.200}")
                self._end = _disconnect(LOST)
        return self._end

    def _came(self, item: Any) -> Message:
        if isinstance(item, str):
            return {"type": "websocket.receive", "text": item}
        if isinstance(item, bytes):
            return {"type": "websocket.receive", "bytes": item}
        code, reason = item
        self._end = _disconnect(int(code), str(reason))
        return self._end

    # ---- what goes out -----------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        kind = message.get("type")
        stream = self._stream
        if self._state == CLOSED or stream.abandoned or stream.ended:
            raise Abandoned("the WebSocket is closed")
        if kind == "websocket.accept" and self._state == CONNECTING:
            await self._accept(message)
        elif kind == "websocket.send" and self._state == OPEN:
            await stream.write(_packed(message))
        elif kind == "websocket.close" and self._state in (CONNECTING, OPEN):
            await self._close(message)
        elif kind == "websocket.http.response.start" and self._state == CONNECTING:
            status, headers, *_ = begun(message)
            self._opening = opening([status, headers, None])
            self._state = REFUSING
        elif kind == "websocket.http.response.body" and self._state == REFUSING:
            await self._refuse(message)
        else:
            raise BadAnswer(f"{kind!r:.200} may not be sent {_WHEN[self._state]}")

    async def _accept(self, message: Message) -> None:
        headers, subprotocol = headers_of(message), message.get("subprotocol")
        if subprotocol is not None:
            header(b"sec-websocket-protocol", subprotocol.encode("latin-1"))
        if any(name.lower() == b"sec-websocket-protocol" for name, _ in headers):
            raise BadAnswer("sec-websocket-protocol is not for headers: say subprotocol")
        self._state = OPEN
        self._stream.begin_reading()  # else its end would not come to an application that only sends
        await self._stream.write(opening([101, headers, subprotocol]))
        self._stream.wake()

    async def _close(self, message: Message) -> None:
        code, reason = message.get("code", NORMAL), message.get("reason") or ""
        if not isinstance(code, int) or not isinstance(reason, str):
            raise BadAnswer(f"a WebSocket is closed with a number and a text, not {code!r:.100} and {reason!r:.100}")
        if self._state == OPEN:
            data: bytes = packb([int(code), reason])
        else:
            data = opening([403, [], None])
        self._end = _disconnect(int(code), reason)
        self._state = CLOSED
        await self._stream.write(data)
        self.ended()
        self._answer(self._finish())

    async def _refuse(self, message: Message) -> None:
        block, more = as_bytes(message.get("body", b"")), message.get("more_body", False)
        first, self._opening = self._opening, b""
        if not more:
            self._state = CLOSED
        await self._stream.write(first + block)
        if not more:
            self._end = self._end or _disconnect(LOST)
            self.ended()
            self._answer(self._finish())

    # ---- its end -----------------------------------------------------------------------------------------------------

    def ended(self) -> None:
        self.over = True
        self._stream.wake()

    async def returned(self) -> None:
        """An application that returns has closed the WebSocket."""
        if self._state in _ANSWERING and not self._stream.abandoned:
            raise BadAnswer("the application returned before it had accepted or refused the WebSocket")
        await self._finish()

    def failed_late(self, error: BaseException) -> None:
        if not isinstance(error, asyncio.CancelledError | OSError):
            tell(self._request_id, "after its close", error)

    async def _finish(self) -> None:
        """Returns when the caller has all of it."""
        stream = self._stream
        if self._state == OPEN and not stream.ended and not stream.abandoned:
            await stream.write(packb([RESTART if stream.leaving else NORMAL, ""]))
        self._state = CLOSED
        await stream.finish()


_HEAD_MAX = 64 * 1024  # beside a message there may be what came with it
_WHEN = {
    CONNECTING: "before websocket.accept",
    OPEN: "after websocket.accept",
    REFUSING: "after websocket.http.response.start",
}


def _disconnect(code: int, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def _packed(message: Message) -> bytes:
    data, text = message.get("bytes"), message.get("text")
    if (data is None) is (text is None):
        raise BadAnswer("websocket.send needs bytes or text, and not both")
    if data is None:
        data = text
        if not isinstance(data, str):
            raise BadAnswer(f"the text of a message must be a text, not {type(data).__name__}")
    elif not isinstance(data, bytes | bytearray | memoryview):
        raise BadAnswer(f"the bytes of a message must be bytes, not {type(data).__name__}")
    packed: bytes = packb(data)
    if len(packed) > WEBSOCKET_MESSAGE_MAX:
        raise BadAnswer(f"a message has {len(packed):,} bytes, {WEBSOCKET_MESSAGE_MAX:,} are allowed")
    return packed
