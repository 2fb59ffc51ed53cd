"""From a head as it came to the arguments of a call: what a client may not say is gone, what a proxy says is believed.

docs/HTTP.md, "What a gateway and a process say to one another".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from .head import end_to_end

Fields = list[tuple[bytes, bytes]]

# What only a proxy may say of the client: an application takes it for the truth.
_FORWARDED = frozenset(
    b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix"
    b" x-forwarded-scheme x-forwarded-ssl x-real-ip x-script-name".split()
)
_OF_ONE_TRY = frozenset(b"x-request-id traceparent tracestate date".split())  # differ when a request is repeated

_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_KEY = re.compile(rb"[!-~]{1,255}")


class Peer(NamedTuple):
    """Who is at the other end of a connection, and at ours. `trusted`: a proxy whose word counts."""

    client: list[Any]  # [host, port]
    server: list[Any]
    trusted: bool = False
    scheme: str = "http"


class Proxies:
    """The networks whose forwarded headers are believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ip_network(each) for each in networks]

    def trust(self, host: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def origin(self, peer: Peer, fields: Fields) -> tuple[list[Any], str]:
        """The client and the scheme that a trusted proxy names: the nearest address that is not one of ours."""
        client, scheme = peer.client, peer.scheme
        for hop in reversed(b",".join(value for name, value in fields if name == b"x-forwarded-for").split(b",")):
            host = _address(hop)
            if not host:
                break
            client = [host, 0]
            if not self.trust(host):
                break
        said = [value for name, value in fields if name == b"x-forwarded-proto"]
        if said and (word := said[-1].rpartition(b",")[2].strip().lower()) in (b"http", b"https"):
            scheme = word.decode()
        return client, scheme


def passed_on(fields: Fields, trusted: bool) -> list[list[bytes]]:
    """The headers that an application sees, in the order sent."""
    ours = end_to_end(fields)
    if trusted:
        return [[name, value] for name, value in ours]
    return [[name, value] for name, value in ours if name not in _FORWARDED]


def keyed(fields: list[list[bytes]], about: dict[str, Any]) -> None:
    """Leave out, in place, what differs between two tries of one request: they must come as the same call."""
    fields[:] = [field for field in fields if field[0] not in _OF_ONE_TRY]
    about["client"] = [about["client"][0], 0]
    about["id"] = ""


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
    """An IP address as proxies write it, with or without a port; "" for anything else."""
    host = text.strip().decode("latin-1")
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return ""
