"""What a caller is told of a fault: rota's own words, or those that its service has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from ...common import errors

if TYPE_CHECKING:
    from ...common.settings import FaultSettings

NAMES = {
    errors.Timeout.code: "timeout",
    errors.Overloaded.code: "overloaded",
    errors.NoService.code: "no_service",
    errors.NotExecuted.code: "not_executed",
    errors.Quarantined.code: "quarantined",
    errors.MaybeExecuted.code: "maybe_executed",
    errors.PayloadTooLarge.code: "payload_too_large",
    errors.Conflict.code: "conflict",
}  # code → setting of [service.NAME.fault]
MAINTENANCE = "maintenance"  # one more: a NoService, but an operator's


def fault_body(cause: str, retry_after_ms: int = 0, **details: object) -> bytes:
    """The map that is the body of an answer with a fault's code."""
    body: bytes = msgpack.packb({"cause": cause, "retry_after_ms": retry_after_ms, **details})
    return body


def worded(settings: FaultSettings, code: int, maintenance: bool = False) -> dict[str, str]:
    """What a service adds to the map: `told` in place of the cause, `code` of the application; only what is set."""
    words = getattr(settings, MAINTENANCE if maintenance else NAMES.get(code, ""), None)
    parts = {"text": "told", "code": "code"}
    return {parts[part]: text for part, text in (words or {}).items()}
