"""The head of an HTTP/1.x request, from its raw bytes: where it ends, whether it is proper, what it says. Pure.

Two expressions decide over nearly all heads. Only for one that they do not match is it found out which rule was broken.
What becomes of a sequence of bytes does not depend on the pieces it comes in: the first byte that breaks a rule does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from .rules import Limits, Rejected

if TYPE_CHECKING:
    from .plain import Plain


class Fields(list[tuple[bytes, bytes]]):
    """The headers of a head in their order, names in lower case, values stripped. Heads that are alike share them:
    nobody changes them.
    """

    __slots__ = ("names", "packed", "passed")

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(fields)
        self.packed = b""  # what of them a service sees, as it travels (plain.py); it is never empty
        self.names = frozenset([name for name, _ in self])
        self.passed: dict[frozenset[bytes], list[list[bytes]]] = {}  # what `end_to_end` made of them before


class _Head(NamedTuple):
    method: str
    target: bytes  # begins with "/", or is "*"
    version: str  # "1.0", "1.1" or "2"
    headers: Fields
    host: bytes  # as in its Host field, with the port; b"" only for HTTP/1.0
    length: int | None  # its Content-Length
    chunked: bool
    keep_alive: bool
    expects_continue: bool


class Head(_Head):
    """What a proper head says. `plain`: what was made of it before, if it came before."""

    plain: Plain | None = None


# A client says the same of itself with each request: what is behind its target is read once; and it asks for the same
# page with the same bytes. 512 of them take 4 MiB.
REMEMBERED = 512
REMEMBERED_MAX = 2048  # bytes of one

LENGTH_DIGITS = 19  # any number of 19 digits fits into 64 bits

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # a character of one (RFC 9110 5.6.2)
_METHOD = rb"[A-Z][A-Z0-9_-]{0,19}"
_TARGET = (
    rb'[!"$-~]'  # all that is visible but "#", which no client sends; browsers do send " < > [ ] ^ ` { | } as they are
)
FIELDS = rb"(?:" + TOKEN + rb"++:[\t -~]*+\r\n)*+"

# A proper head is the one and then the other.
_ASKED = re.compile(rb"(?!CONNECT )(" + _METHOD + rb") (/" + _TARGET + rb"*+|\*|https?://" + _TARGET + rb"++) ")
_SAID = re.compile(rb"HTTP/(1\.[0-9])\r\n(" + FIELDS + rb")\r\n")

# In this order: the first that is found in an improper head is what it is refused for.
_IMPROPER = [
    (rule, re.compile(pattern))
    for rule, pattern in [
        ("control", rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),
        ("non-ascii", rb"[\x80-\xff]"),
        ("request-line", rb"\A(?![^\t\r ]++ [^\t\r ]++ HTTP/[0-9]\.[0-9]\r)"),
        ("version", rb"\A[^\r]*+(?<! HTTP/1\.[0-9])\r"),
        ("method", rb"\A(?!" + TOKEN + rb"++ )"),
        ("unknown-method", rb"\A(?!" + _METHOD + rb" )|\ACONNECT "),
        ("target", rb"\A[^ ]++ (?!(?:/" + _TARGET + rb"*+|\*|https?://" + _TARGET + rb"++) )"),
        ("folded", rb"\n[\t ]"),
        ("no-colon", rb"\n[^:\r]++\r"),
        ("no-name", rb"\n:"),
        ("space-before-colon", rb"\n" + TOKEN + rb"++[\t ]++:"),
        ("name", rb"\n" + TOKEN + rb"*+[^:\r]"),
    ]
]

_PORT = rb":(?:[0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = re.compile(rb"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?:" + _PORT + rb")?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)")
_CODINGS = re.compile(rb"(?:" + TOKEN + rb"++ *, *)*" + TOKEN + rb"++")
_ONCE = {b"host": "two-hosts", b"content-length": "two-lengths", b"transfer-encoding": "two-codings"}
_FRAMING_WITH_TAB = re.compile(rb"\n(?:host|content-length|transfer-encoding):[^\r]*\t", re.IGNORECASE)


_A_METHOD = re.compile(rb"(?!CONNECT\Z)" + _METHOD)
_A_PATH = re.compile(rb"/" + _TARGET + rb"*+")


def is_method(text: bytes) -> bool:
    return _A_METHOD.fullmatch(text) is not None


def is_target(text: bytes) -> bool:
    """A path, with or without a query."""
    return _A_PATH.fullmatch(text) is not None


@lru_cache(256)  # they come from outside, and nearly all of them name one of a few
def is_host(text: bytes) -> bool:
    """With or without a port."""
    return _HOST.fullmatch(text) is not None


class Heads(dict[bytes, Head]):
    """What `read` said of the bytes of a head, or says now. Rejected, as by it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits

    def __missing__(self, data: bytes) -> Head:
        head = read(data, self._limits)
        if len(data) <= REMEMBERED_MAX:
            if len(self) >= REMEMBERED:
                self.clear()
            self[data] = head
        return head


def end_of_head(buffer: bytes | bytearray, limits: Limits) -> int:
    """The index behind the empty line that ends the head with which this begins; -1: it has not come yet.
    Rejected: whatever comes, no proper head can begin like this.
    """
    end = buffer.find(b"\r\n\r\n", 0, limits.head)
    if 0 <= end < limits.line:
        return end + 4  # as short as this it is not too long
    if end >= 0:
        _check_lines(buffer, end + 2, limits)
        return end + 4
    _check_lines(buffer, min(len(buffer), limits.head), limits)
    if len(buffer) > limits.head:
        raise Rejected("head-size")
    return -1


def _check_lines(buffer: bytes | bytearray, stop: int, limits: Limits) -> None:
    """Rejected: the first byte that breaks a line, makes it too long, or is of a line too many. The last may go on."""
    line = count = 0
    while True:
        end = buffer.find(b"\n", line, stop)
        cr = buffer.find(b"\r", line, stop if end < 0 else end)
        text_end = cr if cr >= 0 else end if end >= 0 else stop
        if text_end - line > limits.line:
            raise Rejected("field-size" if count else "request-line-size")
        if end < 0:
            if 0 <= cr < stop - 1:
                raise Rejected("line-end")
            return
        if cr < 0 or cr != end - 1:
            raise Rejected("line-end")
        if count > limits.headers:
            raise Rejected("field-count")
        line, count = end + 1, count + 1


def read(head: bytes, limits: Limits) -> Head:
    """What these bytes, up to and with their empty line, say. Rejected: they break a rule."""
    asked = _ASKED.match(head)
    if asked is None:
        raise Rejected(_broken_rule(head, limits))
    method, target = asked.groups()
    block = head[asked.end() :]
    said = _said(block, limits) if len(block) <= REMEMBERED_MAX else _said.__wrapped__(block, limits)
    if said is None:
        raise Rejected(_broken_rule(head, limits))
    if target[0] != 0x2F:  # "/"
        target = _path(method, target, said[2])
    return new(Head, (method.decode(), target, *said))


new = tuple.__new__  # what a NamedTuple calls itself, in a function of its own: a quarter of the time

Said = tuple[str, Fields, bytes, int | None, bool, bool, bool]


@lru_cache(REMEMBERED)
def _said(block: bytes, limits: Limits) -> Said | None:
    """What is behind the target: all but that and the method, in the order of Head. None: a line is not proper."""
    proper = _SAID.fullmatch(block)
    if proper is None:
        return None
    version, lines = proper.groups()
    if version != b"1.0":
        version = b"1.1"  # a higher one of the same major version is read as the highest that is known (RFC 9110 2.5)
    headers = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b"\t ")))
    if len(headers) > limits.headers:
        raise Rejected("field-count")
    fields = dict(headers)
    if len(fields) != len(headers):
        fields = _joined(headers)
    if 0x09 in lines and _FRAMING_WITH_TAB.search(block) is not None:
        raise Rejected("framing-space")
    host = fields.get(b"host")
    if host is None:
        if version == b"1.1":
            raise Rejected("no-host")
        host = b""
    elif not is_host(host):
        raise Rejected("host")
    length, chunked = None, False
    if b"transfer-encoding" in fields:
        chunked = _chunked(fields, version)
    elif b"content-length" in fields:
        length = length_of(fields[b"content-length"])
    is_1_1 = version == b"1.1"
    keep_alive = _keeps_alive(fields[b"connection"], is_1_1) if b"connection" in fields else is_1_1
    expects = b"expect" in fields and expects_continue(fields[b"expect"], is_1_1)
    return version.decode(), Fields(headers), host, length, chunked, keep_alive, expects


def _broken_rule(head: bytes, limits: Limits) -> str:
    end = max(0, len(head) - 2)  # the empty line
    _check_lines(head, end, limits)
    for rule, pattern in _IMPROPER:
        if pattern.search(head, 0, end) is not None:
            return rule
    return "request-line"  # there is no empty line, or it is not at the end


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """A field that stands there twice is a list; for three of them that is the oldest trick."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in fields:
            fields[name] = value
        elif name in _ONCE:
            raise Rejected(_ONCE[name])
        else:
            fields[name] += b"," + value
    return fields


def _path(method: bytes, target: bytes, host: bytes) -> bytes:
    """The target as a path. An address names the same host as the Host field, as RFC 9112 3.2.2 has clients do."""
    if target == b"*":
        if method != b"OPTIONS":
            raise Rejected("target")
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    assert absolute is not None  # the head would not have been proper
    authority, path = absolute.groups()
    if _HOST.fullmatch(authority) is None:
        raise Rejected("target")
    if authority.lower() != host.lower():
        raise Rejected("other-host")
    if not path and method == b"OPTIONS":
        return b"*"
    return path if path[:1] == b"/" else b"/" + path


def length_of(value: bytes) -> int:
    """Of a Content-Length field. Rejected: it is no number."""
    if not value.isdigit() or len(value) > LENGTH_DIGITS:
        raise Rejected("length")
    return int(value)


def _chunked(fields: dict[bytes, bytes], version: bytes) -> bool:
    if b"content-length" in fields:
        raise Rejected("two-framings")
    if version == b"1.0":
        raise Rejected("coding-of-1.0")
    value = fields[b"transfer-encoding"].lower()
    if value == b"chunked":
        return True
    codings = [coding.strip(b" ") for coding in value.split(b",")]
    well_framed = codings[-1] == b"chunked" and b"chunked" not in codings[:-1]
    raise Rejected("unknown-coding" if well_framed and _CODINGS.fullmatch(value) is not None else "coding")


def _keeps_alive(value: bytes, is_1_1: bool) -> bool:
    options = options_of(value)
    return b"close" not in options and (is_1_1 or b"keep-alive" in options)


def options_of(value: bytes) -> list[bytes]:
    """The members of a list like that of Connection, in lower case."""
    return [option for member in value.lower().split(b",") if (option := member.strip(b"\t "))]


def expects_continue(value: bytes, is_known: bool) -> bool:
    """Of an Expect field. `is_known`: to this version of HTTP. Rejected: it expects something else."""
    if any(member != b"100-continue" for member in options_of(value)):
        raise Rejected("expect")
    return is_known and bool(value)


# What concerns one connection only (RFC 9110 7.6.1).
OF_THE_HOP = frozenset(b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade".split())
# That, what the gateway answers itself, and `Proxy`, which CGI-like applications take for the address of their own
# proxy (HTTP_PROXY).
_DROPPED = OF_THE_HOP.union(b"proxy-authenticate proxy-authorization http2-settings expect proxy".split())
_KEPT = frozenset([b"host", b"content-length"])  # whatever Connection names


def end_to_end(fields: Fields, foreign: frozenset[bytes] = frozenset()) -> list[list[bytes]]:
    """The headers that an application may see: not those of the hop, not those that Connection names, none of these
    foreign ones, and no name with "_", which an application could not tell from the same name with "-". Nobody changes
    them.
    """
    known = fields.passed.get(foreign)
    if known is None:
        known = fields.passed[foreign] = _end_to_end(fields, foreign)
    return known


def _end_to_end(fields: Fields, foreign: frozenset[bytes]) -> list[list[bytes]]:
    named = [value for name, value in fields if name == b"connection"]
    dropped = _DROPPED
    if named and named != [b"keep-alive"]:
        dropped = _DROPPED.union(options_of(b",".join(named))) - _KEPT
    dropped |= foreign
    return [[name, value] for name, value in fields if name not in dropped and 0x5F not in name]  # "_"
