"""How a node is found to be well or not, for a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..declare import Rule, Section, setting
from ..kinds import (
    HOST_PORT,
    Anything,
    Boolean,
    Choice,
    Duration,
    Integer,
    Name,
    Optional,
    Table,
)
from ..names import OF_HTTP

HEARTBEAT, PORT, DUMMY, REQUEST = "heartbeat", "port", "dummy", "request"  # how deep a health check looks


@dataclass(init=False, repr=False, eq=False, slots=True)
class HealthSettings(Section):
    """How the master finds out whether a node serves this service well, and what follows when it does not."""

    section: ClassVar[str] = "service.health"

    check: str = setting(
        HEARTBEAT,
        Choice((HEARTBEAT, PORT, DUMMY, REQUEST)),
        "how deep to look: the agent's beat, a port on the node, any answer of a process, an expected answer",
        "beats and the fate of real requests tell most; the deeper checks need to know the application",
    )
    port: str | None = setting(
        None,
        Optional(HOST_PORT),
        "HOST:PORT that the node must be able to connect to, for check = port",
        "no dependency could be assumed",
    )
    handler: str | None = setting(
        None,
        Optional(Name()),
        "handler that dummy and request call; without it, the application's health function",
        "an application without a health function answers all the same, and dummy asks for no more",
    )
    args: Mapping[str, Any] = setting(
        {},
        Table(Anything()),
        "arguments of that handler",
        "a handler for checks needs none",
    )
    expect: Any = setting(
        None,
        Optional(Anything()),
        "the result that check = request expects; without it, any result that is not an error",
        "most handlers for checks return when all is well and raise when not",
    )
    every: float = setting(
        5.0,
        Duration("100ms", "1h"),
        "time between two checks of a node",
        "with fall it gives the 15 s after which an idle node is known to be ill; traffic tells sooner",
    )
    timeout: float = setting(
        2.0,
        Duration("10ms", "10m"),
        "time for an answer; then the check has failed, whatever comes later",
        "a health check that takes longer than most requests is not well",
    )
    rise: int = setting(
        2,
        Integer(1, 100),
        "successes in a row after which a node counts as well",
        "one may be luck",
    )
    fall: int = setting(
        3,
        Integer(1, 100),
        "failures in a row (checks, crashes, hangs, protocol errors) after which a node counts as ill",
        "two can happen to a node that only restarts a process",
    )
    blacklist: float = setting(
        5.0,
        Duration("100ms", "1h"),
        "how long a node is on the blacklist for the first time; each further time doubles it",
        "about the time that a process takes to restart",
    )
    blacklist_max: float = setting(
        300.0,
        Duration("100ms", "1d"),
        "longest time on the blacklist",
        "a node that was repaired must not have to wait for an operator",
    )
    eject: bool = setting(
        True,
        Boolean(),
        "put nodes that are ill on the blacklist; false only shows them",
        "a node that loses what it is given should be given nothing; false where a human should decide",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "timeout",
            "every",
            lambda s: s.timeout >= s.every,
            "must be less than every: the next check would come before the last one is settled",
        ),
        Rule(
            "blacklist",
            "blacklist_max",
            lambda s: s.blacklist > s.blacklist_max,
            "must not be above blacklist_max",
        ),
        Rule(
            "check",
            "port",
            lambda s: s.check == PORT and s.port is None,
            "needs port: what is the node to connect to?",
        ),
        Rule(
            "args",
            "handler",
            lambda s: bool(s.args) and s.handler is None,
            "needs a handler to be given to",
        ),
        Rule(
            "handler",
            "check",
            lambda s: s.check == REQUEST and s.handler in OF_HTTP,
            "must not be http, http-safe or websocket for check = request: they need an HTTP request, which no check "
            "has; without a handler the processes are asked whether they answer",
        ),
    )
