"""The master: where it listens, how much it holds, when it gives a node up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import host, limits
from ..declare import Computed, Rule, Section, setting
from ..kinds import (
    HOST,
    Address,
    Directory,
    Duration,
    Integer,
    Name,
    Optional,
    Size,
    next_port,
    split_address,
)
from ..units import format_duration

_HOST_NAME = Computed(host.name, "the host's name")


def _same_port(one: str, other: str) -> bool:
    ports = [parts[1] for parts in map(split_address, (one, other)) if parts]
    return len(ports) == 2 and ports[0] == ports[1] != "*"


def _no_room_for_ports(master: MasterSettings) -> bool:
    port = (split_address(master.bind) or ("", "*"))[1]
    used = [limits.FRONTEND_OFFSET] if master.frontend is None else []
    used += [limits.BACKEND_OFFSET] if master.backend is None else []
    return port != "*" and int(port) + max(used, default=0) > limits.PORT_MAX


@dataclass(init=False, repr=False, eq=False, slots=True)
class MasterSettings(Section):
    """The master: where it listens, what it remembers, when it gives a node up."""

    section: ClassVar[str] = "master"

    name: str = setting(
        _HOST_NAME,
        Name(),
        "what this master is called in status, events and logs",
        "people look for a machine by the name it already has",
        flags=("--name",),
        reload=False,
    )
    bind: str = setting(
        f"tcp://0.0.0.0:{limits.CONTROL_PORT}",
        Address(bind=True),
        "control address: the one address that nodes, clients and operators are given",
        "slave nodes are on other machines; bind 127.0.0.1 where there are none",
        flags=("--bind",),
        reload=False,
    )
    frontend: str | None = setting(
        None,
        Optional(Address(bind=True)),
        "address for clients and gateways; without it, bind's port + 1",
        "peers are told the port at hello, so only a firewall makes it worth setting",
        reload=False,
    )
    backend: str | None = setting(
        None,
        Optional(Address(bind=True)),
        "address for worker processes; without it, bind's port + 2",
        "peers are told the port at hello, so only a firewall makes it worth setting",
        reload=False,
    )
    advertise: str | None = setting(
        None,
        Optional(HOST),
        "host that peers are told to use instead of the one they dialled",
        "behind NAT or in a container the dialled host may lead to the control port only",
        flags=("--advertise",),
        reload=False,
    )
    state: str | None = setting(
        None,
        Optional(Directory()),
        "directory for what must survive a restart: intents, node registry, epoch",
        "nothing is written where nobody asked for it; without it a drained node comes back "
        "as active after a restart of the master, so set it in production",
        flags=("--state",),
        reload=False,
    )
    suspect_after: float = setting(
        0.8,
        Duration(format_duration(2 * limits.BEAT_S), "1m"),
        "silence of a node after which it gets no new work; reversible",
        f"four beats of {format_duration(limits.BEAT_S)}: below two, one late beat would do",
    )
    dead_after: float = setting(
        3.0,
        Duration(format_duration(3 * limits.BEAT_S), "10m"),
        "silence of a node after which its requests are settled as lost",
        "outlasts a garbage collection or a short stall of the network; every second more is "
        "a second that callers wait for a machine that is gone",
    )
    drain_deadline: float = setting(
        60.0,
        Duration("0s", "1d"),
        "how long a drain waits for requests in flight before it ends them",
        "twice the default handler limit: what runs when the drain begins may finish, and with "
        "stop_grace it stays below the 90 s of TimeoutStopSec, after which systemd kills",
    )
    queue_bytes: int = setting(
        256 * 2**20,
        Size("1MiB", "64GiB"),
        "most bytes of requests that wait, in the queues of all services together",
        "a bound on memory where queue_limit only counts; beyond it callers get Overloaded",
    )
    max_message: int = setting(
        limits.BODY_MAX,
        Size("1KiB", "64MiB"),
        "largest arguments or result of one call",
        "a larger payload delays what shares its connection; its sender gets PayloadTooLarge",
        reload=False,
    )
    session_idle: float = setting(
        600.0,
        Duration("10s", "1d"),
        "silence of a client after which its session, with the answers kept for it, is closed",
        "a client that is away longer gets MaybeExecuted for what it had in flight",
    )
    answers_bytes: int = setting(
        16 * 2**20,
        Size("64KiB", "4GiB"),
        "most bytes of answers kept for one session until the client acknowledges them",
        "beyond it only the number is kept, and a resend gets MaybeExecuted; a client that "
        "has this much to read and reads nothing for a second is cut",
    )
    answers_total: int = setting(
        512 * 2**20,
        Size("1MiB", "1TiB"),
        "most bytes of answers kept for all sessions together",
        "a bound on memory whatever the number of clients: the session that has most to read is cut first",
    )

    keys_bytes: int = setting(
        64 * 2**20,
        Size("1MiB", "64GiB"),
        "most bytes of answers that are recorded for idempotency keys, of all services together",
        "a bound on memory: beyond it the oldest are forgotten, and a repeated call runs again",
    )
    pins_limit: int = setting(
        100_000,
        Integer(1, 10_000_000),
        "most sessions whose process is remembered, of all services together",
        "some 40 MiB; the most recently used are kept, and one that was forgotten mostly finds its place again",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "suspect_after",
            "dead_after",
            lambda s: s.suspect_after >= s.dead_after,
            "must be less than dead_after: a node gets no new work before it is given up",
        ),
        Rule(
            "bind",
            "frontend",
            lambda s: _same_port(s.bind, s.frontend_address()),
            "must have another port than frontend",
        ),
        Rule(
            "bind",
            "backend",
            lambda s: _same_port(s.bind, s.backend_address()),
            "must have another port than backend",
        ),
        Rule(
            "frontend",
            "backend",
            lambda s: _same_port(s.frontend_address(), s.backend_address()),
            "must have another port than backend (by default bind's port + 1 and + 2)",
        ),
        Rule(
            "bind",
            "backend",
            _no_room_for_ports,
            f"must leave room for frontend and backend, its port + 1 and + 2, up to {limits.PORT_MAX}",
        ),
        Rule(
            "queue_bytes",
            "max_message",
            lambda s: s.queue_bytes < s.max_message,
            "must be at least max_message: the largest request could never wait",
        ),
        Rule(
            "answers_bytes",
            "max_message",
            lambda s: s.answers_bytes < s.max_message,
            "must be at least max_message: the largest answer could never be kept",
        ),
        Rule(
            "keys_bytes",
            "max_message",
            lambda s: s.keys_bytes < s.max_message,
            "must be at least max_message: the largest answer could never be recorded",
        ),
        Rule(
            "answers_total",
            "answers_bytes",
            lambda s: s.answers_total < s.answers_bytes,
            "must be at least answers_bytes, which each session may have",
        ),
    )

    def frontend_address(self) -> str:
        return self.frontend or next_port(self.bind, limits.FRONTEND_OFFSET)

    def backend_address(self) -> str:
        return self.backend or next_port(self.bind, limits.BACKEND_OFFSET)
