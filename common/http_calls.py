"""The calls of gateways (docs/HTTP.md), as bytes: what differs between two of the same requests stands last."""

from __future__ import annotations

from .names import OF_HTTP

_HANDLERS = frozenset(map(str.encode, OF_HTTP))
CLIENT = b"\xa6client"  # where that begins: who asks, and the id. In a head no byte is above 127
_VARYING_MAX = 256  # bytes, of an address, a port, and an id of 128 characters


def lasting(target: bytes, body: bytes) -> bytes:
    """What the same request has when it comes once more; all of what is no call of a gateway."""
    if target.rpartition(b".")[2] in _HANDLERS:
        at = body.rfind(CLIENT, -_VARYING_MAX)
        if at >= 0:
            return body[:at]
    return body
