"""What callers of a service are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..declare import Section, setting
from ..kinds import Optional, Wording

Words = Mapping[str, str]  # "text", "code"; see kinds.Wording


def _told(when: str) -> Any:
    why = "rota's own words name the cause; they stay in the error's details"
    return setting(None, Optional(Wording(), word="default"), f"what callers are told when {when}", why)


@dataclass(init=False, repr=False, eq=False, slots=True)
class FaultSettings(Section):
    """What callers of one service are told instead of rota's own words, by fault."""

    section: ClassVar[str] = "service.fault"

    timeout: Words | None = _told("the deadline of the call passed")
    overloaded: Words | None = _told("the queue is full, or waiting took too long")
    no_service: Words | None = _told("the service has no such handler")
    not_executed: Words | None = _told("the request was lost before its handler started")
    quarantined: Words | None = _told("processes died of such a request")
    maybe_executed: Words | None = _told("the handler had started and its outcome is lost")
    payload_too_large: Words | None = _told("the arguments are too large")
    conflict: Words | None = _told("an idempotency key comes with other arguments than before")
    maintenance: Words | None = _told("an operator has closed the service for maintenance")
