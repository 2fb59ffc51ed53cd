"""A service: how large its pool is, how long its queue, when its processes are replaced."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .. import limits
from ..declare import Rule, Section, nested, setting
from ..kinds import (
    Choice,
    Duration,
    Integer,
    Optional,
    Size,
    Table,
    TimeOfDay,
)
from ..units import format_duration
from .fault import FaultSettings
from .health import HealthSettings
from .http import ServiceHttpSettings

LEAST_LOADED, ROUND_ROBIN = "least-loaded", "round-robin"


@dataclass(init=False, repr=False, eq=False, slots=True)
class ServiceSettings(Section):
    """One service's pool, as the master runs it. Without a section these defaults hold."""

    section: ClassVar[str] = "service"

    min_processes: int | None = setting(
        None,
        Optional(Integer(1, 100_000), word="max"),
        "processes that are always kept running",
        "a pool of fixed size holds no surprise; one below max_processes grows and shrinks",
    )
    max_processes: int | None = setting(
        None,
        Optional(Integer(1, 100_000), word="all"),
        "most processes of the service, over all nodes",
        "the room that nodes have is meant to be used",
    )
    grow_after: float = setting(
        0.5,
        Duration("10ms", "10m"),
        "how long the oldest request waits in the queue before a process is added",
        "about the time an interpreter takes to start: growing sooner would respond to bursts that are over",
    )
    shrink_after: float = setting(
        300.0,
        Duration("1s", "1d"),
        "how long a process must have been spare before it is stopped",
        "outlasts load that recurs each minute; a process too many costs memory, one too few makes requests wait",
    )
    min_active: int = setting(
        1,
        Integer(0, 1000),
        "nodes that must stay able to serve: no drain, rollout, reload or scale goes below it",
        "0 gives up the promise that at least one is always active",
    )
    queue_limit: int = setting(
        1000,
        Integer(0, 1_000_000),
        "most requests that wait; beyond it callers get Overloaded at once",
        "a longer queue only delays the bad news; 0 refuses what no process can take now",
    )
    queue_timeout: float = setting(
        30.0,
        Duration("1ms", "1d"),
        "how long a request waits in the queue before its caller gets Overloaded",
        "the default timeout of a call: sooner would refuse work that a caller still waits for",
    )
    pause_for: float = setting(
        30.0,
        Duration("100ms", format_duration(limits.PAUSE_MAX_S)),
        "how long `rota pause` holds requests when nobody says how long, or resumes",
        "the default timeout of a call: nobody waits for what is held longer",
    )
    credit: int | None = setting(
        None,
        Optional(Integer(1, limits.PAGE_ROWS), word="auto"),
        "requests that one process may hold at a time",
        f"auto gives it one to work on and as many more as it serves in 4 ms, {limits.CREDIT_USUAL} in all, "
        f"{limits.CREDIT_MAX} if nearly all are quick: more keeps short ones flowing but parks work behind long ones",
    )
    balance: str = setting(
        LEAST_LOADED,
        Choice((LEAST_LOADED, ROUND_ROBIN)),
        "which process is next: fewest in flight for its weight, or each in turn",
        "in turn gives a slow process as much as a fast one; least-loaded gives a process several requests of "
        "microseconds that come together before it wakes the next one",
    )
    weights: Mapping[str, int] = setting(
        {},
        Table(Integer(1, 256)),
        "shares of nodes in the requests, as weights; a node that is not named has 1",
        "equal, until machines differ; to give a node nothing, drain it",
    )
    ramp: float = setting(
        5.0,
        Duration("0s", "1h"),
        "time over which the share of a node that joined rises to its full size",
        "caches and connections are cold at first; 0 gives it everything at once",
    )
    handler_timeout: float = setting(
        30.0,
        Duration("10ms", "7d"),
        "limit of handlers that declare none; a process that exceeds it is ended",
        "the default timeout of a call; without a limit a hung process is lost capacity",
    )
    quarantine_for: float = setting(
        3600.0,
        Duration("1s", "30d"),
        "how long requests are refused whose payload two processes died of",
        "then one is tried again, alone: a poison costs one process an hour, and a wrong verdict heals by itself",
    )
    max_attempts: int = setting(
        2,
        Integer(1, 10),
        "how often a request of an idempotent handler is started when its process is lost",
        "if two processes are lost with it, the request is at fault; what had not started never counts",
    )
    retry_percent: int = setting(
        20,
        Integer(0, 100),
        "started and lost requests that may run again, in percent of those answered in the last 10 s",
        "retries then add a fifth to the load of a service in trouble, rather than doubling it",
    )
    retry_per_s: int = setting(
        10,
        Integer(0, 100_000),
        "and this many a second besides",
        "a service with little traffic would have no budget at all",
    )
    keys_for: float = setting(
        600.0,
        Duration("0s", "7d"),
        "how long the answer to a call with an idempotency key is given to repeated calls of it",
        "outlasts the retries of a caller that was restarted; counted from the end of the call",
    )
    drain_deadline: float | None = setting(
        None,
        Optional(Duration("0s", "7d"), word="master"),
        "as master.drain_deadline, for this service",
        "a service with long requests needs more than the others",
    )
    reload_every: float | None = setting(
        None,
        Optional(Duration("1m", "30d"), word="off"),
        "start the processes anew this often, one at a time",
        "only an application that decays needs it",
    )
    reload_at: datetime.time | None = setting(
        None,
        Optional(TimeOfDay(), word="off"),
        "start the processes anew each day at this time of the master's zone, one at a time",
        "only an application that decays needs it",
    )
    max_requests: int | None = setting(
        None,
        Optional(Integer(1, 1_000_000_000), word="off"),
        "a process is replaced after so many requests",
        "it hides leaks; processes are replaced one at a time, so it needs no jitter",
    )
    max_rss: int | None = setting(
        None,
        Optional(Size("16MiB", "4TiB"), word="off"),
        "a process is replaced when its resident memory is above this",
        "replacing it between two requests is kinder than the kernel's OOM killer",
    )
    max_age: float | None = setting(
        None,
        Optional(Duration("1m", "365d"), word="off"),
        "a process is replaced when it is this old",
        "only an application that decays needs it",
    )

    health: HealthSettings = nested(HealthSettings)
    fault: FaultSettings = nested(FaultSettings)
    http: ServiceHttpSettings = nested(ServiceHttpSettings)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "min_processes",
            "max_processes",
            lambda s: s.bounds(s.min_processes or 0)[1] < (s.min_processes or 0),
            "must not be above max_processes",
        ),
        Rule(
            "grow_after",
            "shrink_after",
            lambda s: s.grow_after >= s.shrink_after,
            "must be less than shrink_after: the pool would start and stop processes in turn",
        ),
    )

    def bounds(self, offered: int) -> tuple[int, int]:
        """Fewest and most processes to run where the nodes offer room for `offered`."""
        most = offered if self.max_processes is None else min(self.max_processes, offered)
        least = most if self.min_processes is None else min(self.min_processes, most)
        return least, most
