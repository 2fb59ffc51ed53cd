"""A WSGI application (PEP 3333) as a `Worker`. One request at a time in each thread."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from io import BufferedReader, BytesIO, RawIOBase
from types import TracebackType
from typing import Any
from wsgiref.util import FileWrapper

from ..common.body import Packed
from ..common.limits import INLINE_MAX
from .app import Worker
from .context import Context
from .http_service import (
    BadAnswer,
    Pair,
    Said,
    Streamed,
    answer,
    content_length,
    header,
    incomplete,
    opening,
    remembered,
    request_id,
    said_of,
    service,
    split_target,
    tell,
)
from .recurring import Headers

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_STATUS = re.compile(r"([2-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")

_BLOCK = 64 * 1024  # of a file, and of an upload

_WHOLE = (list, tuple)  # what is returned as one of them is all there
_NO_BLOCKS = (str, bytes)  # a bytes is an iterable of numbers


def worker(application: Application, name: str) -> Worker:
    """A Worker that answers HTTP requests with `application`."""

    def http(
        ctx: Context, method: str, target: bytes, headers: list[list[bytes]], body: bytes | int, about: dict[str, Any]
    ) -> Packed | None:
        environ = _environ(ctx, method, target, headers, body, about)
        if made.threads != 1:
            environ["wsgi.multithread"] = True
        response = _Response(method, ctx, environ["rota.request_id"])
        return response.collect(application(environ, response.start))

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
    """WSGI has no WebSockets: the client's mistake, which another try would not change."""
    ctx.stream.write(
        opening([400, [[b"content-type", b"text/plain"]], None]) + b"this application takes no WebSockets\n"
    )
    ctx.stream.finish()


def _environ(
    ctx: Context, method: str, target: bytes, headers: list[Pair], body: bytes | int, about: dict[str, Any]
) -> dict[str, Any]:
    try:
        client_host, client_port = about["client"]
    except (LookupError, TypeError, ValueError) as error:
        raise incomplete(about, error) from None
    known_as = about.get("id") or request_id(ctx, headers)  # before the headers are read
    if type(headers) is not Headers:
        environ = _alike(method, target, headers, body, about)
    else:
        if headers.made is None:
            headers.made = _alike(method, target, headers, body, about)
        environ = headers.made.copy()
    environ["REMOTE_ADDR"] = client_host
    environ["REMOTE_PORT"] = str(client_port)
    environ["wsgi.input"] = (
        BytesIO(body) if isinstance(body, bytes) else BufferedReader(_Upload(ctx.stream, body), _BLOCK)
    )
    environ["wsgi.errors"] = sys.stderr
    environ["rota.request_id"] = known_as
    return environ


def _alike(method: str, target: bytes, headers: list[Pair], body: bytes | int, about: dict[str, Any]) -> dict[str, Any]:
    """The part of the environment that calls which come again share, with room for the rest."""
    try:
        root = about["root"]
        environ = _always(about["scheme"], about["version"], root, *about["server"]).copy()
    except (LookupError, TypeError, ValueError) as error:
        raise incomplete(about, error) from None
    raw, path, query = split_target(target, root)
    said = {_key(name): value.decode("latin-1") for name, value in headers}
    if len(said) != len(headers) or "" in said:
        said = _joined(headers)
    size = len(body) if isinstance(body, bytes) else body
    if size or "CONTENT_LENGTH" in said:
        said["CONTENT_LENGTH"] = str(size)  # a chunked body has none, and applications read as much as it says
    environ["REQUEST_METHOD"] = method
    environ["PATH_INFO"] = "" if raw == b"*" else (path[len(root.encode()) :] if root else path).decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["REQUEST_URI"] = target.decode("latin-1")  # what PATH_INFO cannot tell: /a%2Fb from /a/b
    environ.update(said)
    return environ


_OF_REQUEST = (
    *("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REMOTE_ADDR", "REMOTE_PORT"),
    *("wsgi.input", "wsgi.errors", "rota.request_id"),
)


@lru_cache(64)  # the hosts and ports that gateways listen on
def _always(scheme: str, version: str, root: str, server_host: str, server_port: int) -> dict[str, Any]:
    """What is the same in all environments of one address, and room for the rest: a copy is quicker than a new one."""
    return {
        **dict.fromkeys(_OF_REQUEST),
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "SERVER_NAME": server_host,
        "SERVER_PORT": str(server_port),
        "SERVER_PROTOCOL": f"HTTP/{version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": _File,
        **({"HTTPS": "on"} if scheme == "https" else {}),
    }


def _joined(headers: list[Pair]) -> dict[str, str]:
    """As _alike makes it, where headers came more than once, or are such as no application may see."""
    said: dict[str, str] = {}
    for name, value in headers:
        key, text = _key(name), value.decode("latin-1")
        if key in said:
            text = f"{said[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        if key:
            said[key] = text
    return said


@lru_cache(512)  # clients choose the names, and choose from few
def _key(name: bytes) -> str:
    """Empty for a header that no application may see: `x_real_ip` would pass for X-Real-IP, and HTTP_PROXY is what
    libraries take their proxy from.
    """
    plain = name.decode("latin-1").upper().replace("-", "_")
    if b"_" in name or plain == "PROXY":
        return ""
    return plain if plain in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{plain}"


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


class _Response:
    """What the application answers. If that is small and all there it is one message; else each block goes out before
    the next one is asked for. The headers count as sent with the first byte of the body.
    """

    _said: Said | None = None
    _held = 0  # bytes of its blocks
    _hurries = True  # nobody knows when the next block comes
    _streamed: Streamed | None = None
    _complete = False  # the rest of the body is not sent anyway

    def __init__(self, method: str, ctx: Context, known_as: str) -> None:
        self._method = method
        self._ctx = ctx
        self._request_id = known_as
        self._blocks: list[bytes] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Callable[..., Any]:
        """`start_response`; returns `write`."""
        if exc_info:
            try:
                if self._blocks or self._streamed is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # else its traceback holds this frame, and this frame the traceback
        elif self._said is not None:
            raise BadAnswer("start_response was called twice; the second time needs exc_info")
        self._said = _begun(_status(status), headers)
        return self.write

    def write(self, block: bytes) -> None:
        """What `start_response` returns."""
        self._add(block)
        if self._streamed is not None and self._streamed.exceeds:
            raise self._streamed.other_length()

    def _add(self, block: bytes) -> None:
        if not isinstance(block, bytes):
            raise BadAnswer(f"the body must be made of bytes, not of {type(block).__name__}")
        if self._said is None:
            raise BadAnswer("there was a piece of the body before start_response was called")
        if not block or self._complete:
            return
        if self._streamed is not None:
            if data := self._streamed.piece(block):
                self._ctx.stream.write(data)
            return
        self._blocks.append(block)
        self._held += len(block)
        if self._ctx.stream is not None and not self._may_wait(self._said):
            self._begin(self._said)

    def _may_wait(self, said: Said) -> bool:
        """May what is held wait for more? PEP 3333: no block may wait while the application makes the next one."""
        return self._held <= INLINE_MAX and (not self._hurries or self._held == content_length(said))

    def collect(self, result: Iterable[bytes]) -> Packed | None:
        """The result of the handler; None when the caller has all of the answer already. Closes what was returned,
        whatever happens.
        """
        if type(result) is list and len(result) == 1 and not self._held:
            block, said = result[0], self._said
            if type(block) is bytes and len(block) <= INLINE_MAX and said is not None:  # as most are
                return answer(self._method, said, block)
        try:
            for block in self._blocks_of(result):
                self._add(block)
                if self._complete or (self._streamed is not None and self._streamed.exceeds):
                    break
            if self._said is None:
                raise BadAnswer("the application returned without having called start_response")
        finally:
            self._close(result)
        if self._streamed is None or self._complete:
            return answer(self._method, self._said, b"".join(self._blocks))
        self._end(self._streamed)
        return None

    def _blocks_of(self, result: Any) -> Iterable[bytes]:
        blocks, said = _blocks(result), self._said
        if isinstance(result, _File) and said is not None:
            size = content_length(said)
            if size is not None:
                self._hurries = size > INLINE_MAX
                return _upto(size, blocks)
        self._hurries = not isinstance(result, _WHOLE)
        return blocks

    def _close(self, result: Any) -> None:
        """An error of its `close` does not change the answer."""
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as error:
                tell(self._request_id, "in close, behind its answer", error)

    def _end(self, streamed: Streamed) -> None:
        if streamed.exceeds:  # its caller has all that was announced
            tell(self._request_id, "after its answer", streamed.other_length())
        else:
            streamed.end()
        self._ctx.stream.finish()

    def _begin(self, said: Said) -> None:
        self._streamed = streamed = Streamed(self._method, said)
        blocks, self._blocks = self._blocks, []
        if streamed.has_body:
            self._ctx.stream.write(streamed.piece(b"".join(blocks)))
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


def _upto(size: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Of a file as much as was announced: an application may mean a part of it (PEP 3333)."""
    for block in blocks:
        yield block[:size]
        size -= len(block)
        if size <= 0:
            return


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


def _begun(status: int, headers: Any) -> Said:
    if not isinstance(headers, list):
        raise BadAnswer(f"the headers must be a list of (name, value), not {_kind(headers)}")
    try:
        return remembered(_said, status, headers)
    except (AttributeError, TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise BadAnswer(f"the headers must be pairs of texts in latin-1: {error}") from None


@lru_cache(512)  # an application says the same with most answers
def _said(status: int, headers: tuple[tuple[str, str], ...]) -> Said:
    return said_of(status, [header(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
