"""A pair of masters: whom this one shadows, when it takes over, and what that needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import limits
from ..declare import Rule, Section, setting
from ..kinds import Address, Boolean, Choice, Duration, Lease, Optional, Several
from ..steps import Steps
from ..units import format_duration

MAJORITY, ANY = "majority", "any"
AGENTS = "agents"
PRIMARY, BACKUP = "primary", "backup"


@dataclass(init=False, repr=False, eq=False, slots=True)
class StandbySettings(Section):
    """A pair of masters: whom this one shadows, when it takes over, and what that needs (docs/STANDBY.md)."""

    section: ClassVar[str] = "standby"

    backup_of: tuple[str, ...] | None = setting(
        None,
        Optional(Several(Address(), limit=limits.MASTERS_MAX)),
        "control address of the primary, whose backup this master is; with an engine as lease, of all other masters",
        "a master that knows of no other is alone; only the backup needs to be told of the other one",
        flags=("--backup-of",),
        reload=False,
    )
    address: str | None = setting(
        None,
        Optional(Address()),
        "control address at which the other master reaches this one; without it, bind's port at the advertised host, "
        "or at the address from which this one dials",
        "a master that comes back dials the one that took over; only NAT makes it worth setting",
        reload=False,
    )
    lease: str = setting(
        AGENTS,
        Lease(),
        "what decides which master is active: agents, by votes, for a pair; or an engine, for any number of masters",
        "no other service is needed; etcd or PostgreSQL let three or more masters stand by for each other",
        reload=False,
    )
    quorum: str = setting(
        MAJORITY,
        Choice((MAJORITY, ANY)),
        "what a standby needs to take over: the votes of most nodes, or nobody's",
        "any gives up at-most-once across a partition: both masters dispatch then",
        reload=False,
    )
    takeover_after: float = setting(
        1.0,
        Duration("500ms", "1m"),
        "silence of the active master after which the standby takes over; the same on both",
        f"ten pulses of {format_duration(limits.PULSE_S)}; promises and leases last as long, so the active stops first",
        reload=False,
    )
    takeover_grace: float = setting(
        5.0,
        Duration("1s", "10m"),
        "after a takeover no node is given up for its silence before this",
        "agents need a moment to notice that the other master is gone, and to dial this one",
    )
    handover: bool = setting(
        True,
        Boolean(),
        "an active master that is told to stop hands over to its standby at once",
        "a planned stop should cost no more than a switchover; without it the standby waits for the active to return",
        flags=("--handover",),
    )
    on_takeover: tuple[str, ...] = setting(
        (),
        Steps(),
        "steps when this master becomes active: start SERVICE, stop SERVICE, run COMMAND",
        "what else has to move with a master, such as an address, only its operator knows",
    )
    on_return: tuple[str, ...] = setting(
        (),
        Steps(),
        "steps when it becomes the standby again, and when it stops while it is active",
        "mostly on_takeover backwards",
    )
    step_timeout: float = setting(
        30.0,
        Duration("100ms", "1h"),
        "time for one step; then its processes are killed and it has failed",
        "long enough for a disk to be mounted; callers wait as long by default",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "backup_of",
            "lease",
            lambda s: s.lease == AGENTS and len(s.backup_of or ()) > 1,
            "must be one address: agents decide between two masters, an engine between more",
        ),
    )

    @property
    def role(self) -> str:
        """Who stands first when both start together."""
        return BACKUP if self.backup_of else PRIMARY

    @property
    def takeover_ms(self) -> int:
        return int(self.takeover_after * 1000)
