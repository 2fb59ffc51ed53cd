"""A WSGI application (PEP 3333) as a `Worker`. One request at a time in each thread."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from io import BufferedReader, BytesIO, RawIOBase
from types import TracebackType
from typing import Any
from wsgiref.util import FileWrapper

from .app import Worker
from .context import Context
from .http_service import (
    WHOLE_MAX,
    BadAnswer,
    Pair,
    Streamed,
    answer,
    content_length,
    header,
    incomplete,
    opening,
    request_id,
    service,
    split_target,
)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_STATUS = re.compile(r"([2-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")

# Keys of the environment by names of headers: looking one up takes a sixth of making it.
_KEYS_MAX = 512  # clients choose the names
_NAME_MAX = 64
_keys: dict[bytes, str] = {}

_BLOCK = 64 * 1024  # of a file, and of an upload

_WHOLE = (list, tuple)  # what is returned as one of them is all there
_NO_BLOCKS = (str, bytes)  # a bytes is an iterable of numbers


def worker(application: Application, name: str) -> Worker:
    """A Worker that answers HTTP requests with `application`."""

    def http(
        ctx: Context, method: str, target: bytes, headers: list[list[bytes]], body: bytes | int, about: dict[str, Any]
    ) -> list[Any] | None:
        environ = _environ(ctx, method, target, headers, body, about)
        environ["wsgi.multithread"] = made.threads != 1
        response = _Response(method, ctx.stream)
        response.collect(application(environ, response.start))
        return response.answer()

    made = service(name, http, _refuse_websocket)
    made.threads = 1
    return made


def _refuse_websocket(
    ctx: Context,
    method: str,
    target: bytes,
    headers: list[list[bytes]],
    body: bytes | int | None,
    about: dict[str, Any],
) -> None:
    """WSGI has none. It is the client's mistake, and nothing that trying again would change."""
    ctx.stream.write(
        opening([400, [[b"content-type", b"text/plain"]], None]) + b"this application takes no WebSockets\n"
    )
    ctx.stream.finish()


def _environ(
    ctx: Context, method: str, target: bytes, headers: list[Pair], body: bytes | int, about: dict[str, Any]
) -> dict[str, Any]:
    size = len(body) if isinstance(body, bytes) else body
    try:
        root = about["root"]
        client_host, client_port = about["client"]
        server_host, server_port = about["server"]
        scheme, version = about["scheme"], about["version"]
    except (LookupError, TypeError, ValueError) as error:
        raise incomplete(about, error) from None
    raw, path, query = split_target(target, root)
    below = b"" if raw == b"*" else path[len(root.encode()) :]
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "PATH_INFO": below.decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "REQUEST_URI": target.decode("latin-1"),  # what PATH_INFO cannot tell: /a%2Fb from /a/b
        "SERVER_NAME": server_host,
        "SERVER_PORT": str(server_port),
        "SERVER_PROTOCOL": f"HTTP/{version}",
        "REMOTE_ADDR": client_host,
        "REMOTE_PORT": str(client_port),
        "wsgi.url_scheme": scheme,
        "wsgi.input": BytesIO(body) if isinstance(body, bytes) else BufferedReader(_Upload(ctx.stream, body), _BLOCK),
        "wsgi.errors": sys.stderr,
        "rota.request_id": request_id(ctx, headers, about),  # before the headers are read
        **_ALWAYS,
    }
    for header_name, value in headers:
        key = _keys.get(header_name)
        if key is None:
            key = _key(header_name)
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        if key:
            environ[key] = text
    if size or "CONTENT_LENGTH" in environ:
        environ["CONTENT_LENGTH"] = str(size)  # a chunked body has none, and applications read as much as it says
    return environ


def _key(name: bytes) -> str:
    """Empty for a header that no application may see: `x_real_ip` would pass for X-Real-IP, and HTTP_PROXY is what
    libraries take their proxy from."""
    plain = name.decode("latin-1").upper().replace("-", "_")
    key = plain if plain in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{plain}"
    if b"_" in name or plain == "PROXY":
        key = ""
    if len(_keys) >= _KEYS_MAX:
        _keys.clear()
    if len(name) <= _NAME_MAX:
        _keys[name] = key
    return key


class _Upload(RawIOBase):
    """A body that is pulled as it is read. What the application does not read is never sent."""

    def __init__(self, stream: Any, size: int) -> None:
        if stream is None:
            raise ValueError("a body that comes as a stream needs a caller that streams")
        self._stream = stream
        self._left = size
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._piece and self._left:
            self._piece = memoryview(self._stream.read())
            if not self._piece:
                raise ConnectionAbortedError(f"the body ended {self._left} bytes before its length")
        size = min(len(into), len(self._piece), self._left)
        into[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        self._left -= size
        return size


class _File(FileWrapper):
    def __init__(self, filelike: Any, blksize: int = _BLOCK) -> None:
        super().__init__(filelike, max(blksize, _BLOCK))


_ALWAYS: dict[str, Any] = {
    "wsgi.version": (1, 0),
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.file_wrapper": _File,
}


class _Response:
    """What the application says. It is kept, and is one message, when it is small and known to end; else each block
    goes out before the next is asked for. The headers count as sent with the first byte of the body.
    """

    __slots__ = ("status", "headers", "_blocks", "_complete", "_held", "_hold", "_method", "_stream", "_streamed")

    def __init__(self, method: str, stream: Any) -> None:
        self.status = 0
        self.headers: list[Pair] = []
        self._method = method
        self._stream = stream
        self._blocks: list[bytes] = []
        self._held = 0  # bytes of them
        self._hold = 0  # so many may be
        self._streamed: Streamed | None = None
        self._complete = False  # the rest of the body is not sent anyway

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Callable[..., Any]:
        """`start_response`; returns `write`."""
        if exc_info:
            try:
                if self._blocks or self._streamed is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # else its traceback holds this frame, and this frame the traceback
        elif self.status:
            raise BadAnswer("start_response was called twice; the second time needs exc_info")
        self.status, self.headers = _status(status), _headers(headers)
        return self.write

    def write(self, block: bytes) -> None:
        if not isinstance(block, bytes):
            raise BadAnswer(f"the body must be made of bytes, not of {type(block).__name__}")
        if not self.status:
            raise BadAnswer("there was a piece of the body before start_response was called")
        if not block or self._complete:
            return
        if self._streamed is not None:
            self._stream.write(self._streamed.piece(block))
            return
        if not self._hold and not self._blocks and self._stream is not None:
            self._hold = self._may_hold()
        self._blocks.append(block)
        self._held += len(block)
        if self._held > self._hold and self._stream is not None:
            self._begin()

    def collect(self, result: Iterable[bytes]) -> None:
        """Take the body, and close what was returned, whatever happens."""
        try:
            if isinstance(result, _WHOLE):
                self._hold = WHOLE_MAX
            for block in _blocks(result):
                self.write(block)
                if self._complete:
                    break
            if not self.status:
                raise BadAnswer("the application returned without having called start_response")
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def answer(self) -> list[Any] | None:
        """The result of the handler; None when the caller has all of the answer already."""
        if self._streamed is None or self._complete:
            return answer(self._method, self.status, self.headers, b"".join(self._blocks))
        self._streamed.end()
        self._stream.finish()
        return None

    def _may_hold(self) -> int:
        size = content_length(self.headers)
        return WHOLE_MAX if size is not None and size <= WHOLE_MAX else 0

    def _begin(self) -> None:
        self._streamed = streamed = Streamed(self._method, self.status, self.headers)
        blocks, self._blocks = self._blocks, []
        if streamed.has_body:
            self._stream.write(streamed.piece(b"".join(blocks)))
        else:
            self._complete = True


def _blocks(result: Any) -> Iterable[bytes]:
    if isinstance(result, _NO_BLOCKS):
        raise BadAnswer(f"the application must return an iterable of bytes, not {type(result).__name__}: say [body]")
    try:
        blocks: Iterable[bytes] = iter(result)
    except TypeError:
        raise BadAnswer(f"the application must return an iterable of bytes, not {_kind(result)}") from None
    return blocks


def _status(status: Any) -> int:
    number = _number(status) if isinstance(status, str) else 0
    if not number:
        raise BadAnswer(f"the status must be a text such as '200 OK', not {status!r:.200}")
    return number


@lru_cache(256)  # an application uses few
def _number(status: str) -> int:
    """0: there is none."""
    match = _STATUS.fullmatch(status)
    return int(match[1]) if match is not None else 0


def _headers(headers: Any) -> list[Pair]:
    if not isinstance(headers, list):
        raise BadAnswer(f"the headers must be a list of (name, value), not {_kind(headers)}")
    try:
        return [header(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except (AttributeError, TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise BadAnswer(f"the headers must be pairs of texts in latin-1: {error}") from None


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
