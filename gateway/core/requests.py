"""From a head as it came to the arguments of a call: what a client may not say is gone, what a proxy says is believed.

docs/HTTP.md, "What a gateway and a process say to one another".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from .head import TOKEN, Fields, Head, end_to_end, is_host

# What only a proxy may say of the client: an application takes it for the truth.
_FORWARDED = frozenset(
    b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix"
    b" x-forwarded-scheme x-forwarded-ssl x-real-ip x-script-name".split()
)
_OF_ONE_TRY = frozenset(b"x-request-id traceparent tracestate date".split())  # differ when a request is repeated

_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_KEY = re.compile(rb"[!-~]{1,255}")

_TOKEN = TOKEN + rb"++"
_VALUE = rb"(?:" + _TOKEN + rb'|"(?:[^"\\]|\\.)*+")'
_PAIR = re.compile(rb"(" + _TOKEN + rb")=(" + _VALUE + rb")")
_PAIRS = _TOKEN + rb"=" + _VALUE + rb"(?:[ \t]*+;[ \t]*+" + _TOKEN + rb"=" + _VALUE + rb")*+"
_ELEMENT = re.compile(rb"[ \t]*+(" + _PAIRS + rb")?[ \t]*+(?:,|$)")


class Peer(NamedTuple):
    """Who is at the other end of a connection, and at ours. `trusted`: a proxy whose word counts."""

    client: list[Any]  # [host, port]
    server: list[Any]
    trusted: bool
    scheme: str
    packed: bytes  # what of it goes with each call (core/plain.py)


class Origin(NamedTuple):
    """Where a request came from, and what it was sent to."""

    client: list[Any]
    scheme: str
    host: bytes


class Hop(NamedTuple):
    """What one proxy says of whom it was asked by; b"": nothing."""

    client: bytes
    scheme: bytes
    host: bytes


_NO_HOP = Hop(b"", b"", b"")


class Proxies:
    """The networks whose forwarded headers are believed, and which these are: those of RFC 7239, or the older ones."""

    def __init__(self, networks: Iterable[str] = (), rfc7239: bool = False) -> None:
        self._networks = [ip_network(each) for each in networks]
        self._rfc7239 = rfc7239
        self._foreign = _FORWARDED - {b"forwarded"} if rfc7239 else frozenset([b"forwarded"])

    def trust(self, host: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def origin(self, peer: Peer, head: Head) -> Origin:
        """What a trusted proxy says of the request: of the client the nearest address that is not one of ours."""
        said = _rfc7239(head.headers) if self._rfc7239 else _x_forwarded(head.headers)
        client, at = peer.client, len(said) - 1
        for place in range(at, -1, -1):
            host = _address(said[place].client)
            if not host:
                break
            client, at = [host, 0], place
            if not self.trust(host):
                break
        hop = said[at] if said else _NO_HOP
        scheme = hop.scheme.lower()
        return Origin(
            client,
            scheme.decode() if scheme in (b"http", b"https") else peer.scheme,
            hop.host if is_host(hop.host) else head.host,
        )

    def passed_on(self, fields: Fields, trusted: bool) -> list[list[bytes]]:
        """The headers that an application sees, in the order sent."""
        return end_to_end(fields, self._foreign if trusted else _FORWARDED)


def _x_forwarded(fields: Fields) -> list[Hop]:
    """Scheme and host are those that the nearest proxy says: the three lists need not be of one length."""
    clients, schemes, hosts = (
        b",".join(value for name, value in fields if name == each).split(b",")
        for each in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
    )
    return [Hop(client.strip(), schemes[-1].strip(), hosts[-1].strip()) for client in clients]


def _rfc7239(fields: Fields) -> list[Hop]:
    """None at all if anything in it is malformed: where one element ends would be a guess."""
    text = b",".join(value for name, value in fields if name == b"forwarded")
    hops, place = [], 0
    while place < len(text):
        found = _ELEMENT.match(text, place)
        if found is None:
            return []
        place = found.end()
        pairs = [(name.lower(), _unquoted(value)) for name, value in _PAIR.findall(found[1] or b"")]
        said = dict(pairs)
        if len(said) != len(pairs):
            return []
        if said:
            hops.append(Hop(said.get(b"for", b""), said.get(b"proto", b""), said.get(b"host", b"")))
    return hops


def _unquoted(value: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", value[1:-1]) if value.startswith(b'"') else value


def keyed(fields: list[list[bytes]], about: dict[str, Any]) -> list[list[bytes]]:
    """Without what differs between two tries of one request, also in `about`: they must come as the same call."""
    about["client"] = [about["client"][0], 0]
    about["id"] = ""
    return [field for field in fields if field[0] not in _OF_ONE_TRY]


def request_id(fields: Fields, new: Callable[[], str]) -> str:
    """The client's own X-Request-Id if it is fit for a log, else a new one."""
    for name, value in fields:
        if name == b"x-request-id":
            return value.decode() if _ID.fullmatch(value) else new()
    return new()


def key_of(fields: Fields) -> str:
    """Its Idempotency-Key; "" when there is none that could be one."""
    found = [value for name, value in fields if name == b"idempotency-key"]
    return found[0].decode() if len(found) == 1 and _KEY.fullmatch(found[0]) else ""


def trace_of(fields: Fields) -> dict[str, str]:
    """What of W3C Trace Context goes with the call."""
    found = [value for name, value in fields if name == b"traceparent"]
    return {"traceparent": found[0].decode()} if len(found) == 1 and _TRACE.fullmatch(found[0]) else {}


def _address(text: bytes) -> str:
    """An IP address as proxies write it, with or without a port; "" for anything else. A zone (`fe80::1%eth0`) is left
    out: it means something on their machine only, and may be any text of any length.
    """
    host = text.strip().decode("latin-1")
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return ""
