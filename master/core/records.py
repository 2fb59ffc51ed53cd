"""What is journaled, and what it means when read back. Records are msgpack maps; the last word counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack

from ...common.lifecycle import Health, Intent
from .maintenance import Closed
from .registry import Node


def intent(node: Node) -> bytes:
    return _pack(
        {
            "t": "intent",
            "node": node.name,
            "state": str(node.intent),
            "generation": node.generation,
            "fresh_from": node.fresh_from,
            "by": node.by,
            "reason": node.reason,
            "version": node.version,
        }
    )


def present(name: str, is_present: bool) -> bytes:
    """This node may hold requests of ours (it said hello), or surely holds none (it said goodbye, or was forgotten)."""
    return _pack({"t": "present", "node": name, "present": is_present})


def forgotten(name: str) -> bytes:
    return _pack({"t": "forgotten", "node": name})


def past(name: str) -> bytes:
    """It said goodbye, or was forgotten, so long ago that nobody asks any more for what it did."""
    return _pack({"t": "past", "node": name})


def whole(since: int) -> bytes:
    """In this epoch and later ones no node was given anything before it was on record here."""
    return _pack({"t": "whole", "since": since})


def scaled(service: str, processes: int) -> bytes:
    return _pack({"t": "scaled", "service": service, "processes": processes})


def exempt(name: str, is_exempt: bool) -> bytes:
    """An operator keeps this node, or the nodes of this service, off the blacklist."""
    return _pack({"t": "exempt", "name": name, "exempt": is_exempt})


def closed(service: str, how: Closed | None) -> bytes:
    """An operator has closed this service for maintenance; None: opened it again."""
    return _pack({"t": "closed", "service": service, "how": how})


class Paused(NamedTuple):
    """How long a service was to be held, and until when by the time of day: no other clock outlasts a machine."""

    for_s: float
    until: float
    by: str
    reason: str


def paused(service: str, how: Paused | None) -> bytes:
    """The requests of this service are held; None: no longer."""
    return _pack({"t": "paused", "service": service, "how": how})


class Marked(NamedTuple):
    """A node that fell, and what of it is left. Times are the time of day: no other clock outlasts a machine."""

    boot: str  # of its agent: another one begins anew
    health: str
    falls: int
    fell_at: float
    service: str
    cause: str
    until: float | None


def marked(node: str, mark: Marked | None) -> bytes:
    """None: nothing is held against it any more."""
    return _pack({"t": "marked", "node": node, "mark": mark})


GONE_MAX = 500  # of suspects: to forget one again is no mistake
CASES = ("suspect", "cleared", "quarantined")  # states of what is in quarantine, or was about to be


class Died(NamedTuple):
    """One death that a request is blamed for; `at` is the time of day."""

    at: float
    cause: str
    kind: str
    node: str
    incarnation: str
    session: str
    request: int
    text: str


class Suspect(NamedTuple):
    """A request that processes died of (quarantine). Times are the time of day."""

    target: bytes
    size: int
    payload: bytes
    state: str
    since: float
    strikes: int
    struck_at: float
    until: float
    died: int
    deaths: list[Died]


def suspect(fingerprint: bytes, case: Suspect | None) -> bytes:
    """None: it is forgotten."""
    return _pack({"t": "suspect", "fingerprint": fingerprint, "case": case})


class Peer(NamedTuple):
    """The other master of the pair. Each journals its own: this record is not told to the standby."""

    name: str
    address: str  # of its control socket
    role: str  # primary or backup


def peer(peer: Peer | None) -> bytes:
    return _pack({"t": "peer", "peer": peer})


def member(name: str, peer: Peer | None) -> bytes:
    """One of the masters where an engine decides who is active; None: it is gone for good."""
    return _pack({"t": "member", "name": name, "peer": peer})


def electorate(names: Iterable[str], before: Iterable[str] | None = None) -> bytes:
    """The nodes whose votes make a master (docs/STANDBY.md). `before`: whose votes count too until the standby has
    agreed to the change; None: it has.
    """
    return _pack({"t": "electorate", "nodes": sorted(names), "before": None if before is None else sorted(before)})


class Restored:
    """The state that a sequence of records adds up to; `records()` says the same in as few as possible."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.present: set[str] = set()
        self.left: set[str] = set()  # not long ago
        self.whole_since: int | None = None
        self.targets: dict[str, int] = {}
        self.exempt: set[str] = set()
        self.closed: dict[str, Closed] = {}
        self.paused: dict[str, Paused] = {}
        self.marked: dict[str, Marked] = {}
        self.suspects: dict[bytes, Suspect] = {}  # by fingerprint
        self.gone: dict[bytes, None] = {}  # the last of them that were forgotten
        self.electorate: frozenset[str] = frozenset()
        self.electorate_before: frozenset[str] | None = None
        self.peer: Peer | None = None
        self.members: dict[str, Peer] = {}

    @classmethod
    def of(cls, records: Iterable[bytes]) -> Restored:
        """Raises ValueError as `read` does."""
        made = cls()
        for record in records:
            made.read(record)
        return made

    def copy(self) -> Restored:
        return self.of(self.records())

    def read(self, data: bytes) -> None:
        """Raises ValueError for a record that this version does not understand."""
        try:
            record: dict[str, Any] = msgpack.unpackb(data)
            getattr(self, f"_read_{record['t']}")(record)
        except Exception as error:
            raise ValueError(f"journal record not understood: {error!r}") from None

    def records(self) -> list[bytes]:
        return [
            *(intent(node) for node in self.nodes.values()),
            *(present(name, True) for name in sorted(self.present)),
            *(present(name, False) if name in self.nodes else forgotten(name) for name in sorted(self.left)),
            *([whole(self.whole_since)] if self.whole_since is not None else []),
            *(scaled(service, count) for service, count in self.targets.items()),
            *(exempt(name, True) for name in sorted(self.exempt)),
            *(closed(service, how) for service, how in self.closed.items()),
            *(paused(service, how) for service, how in self.paused.items()),
            *(marked(node, mark) for node, mark in self.marked.items()),
            *(suspect(fingerprint, case) for fingerprint, case in self.suspects.items()),
            *(suspect(fingerprint, None) for fingerprint in self.gone),
            *(
                [electorate(self.electorate, self.electorate_before)]
                if self.electorate or self.electorate_before
                else []
            ),
            *([peer(self.peer)] if self.peer else []),
            *(member(name, each) for name, each in self.members.items()),
        ]

    def _read_intent(self, record: dict[str, Any]) -> None:
        node = self.nodes.setdefault(record["node"], Node(record["node"]))
        node.intent = Intent(record["state"])
        node.generation, node.by = record["generation"], record["by"]
        node.reason, node.version = record["reason"], record["version"]
        node.fresh_from = record.get("fresh_from", 0)  # an older master did not say it

    def _read_present(self, record: dict[str, Any]) -> None:
        self.nodes.setdefault(record["node"], Node(record["node"]))
        came, went = (self.present, self.left) if record["present"] else (self.left, self.present)
        came.add(record["node"])
        went.discard(record["node"])

    def _read_forgotten(self, record: dict[str, Any]) -> None:
        self.nodes.pop(record["node"], None)
        self.marked.pop(record["node"], None)
        self.present.discard(record["node"])
        self.left.add(record["node"])

    def _read_past(self, record: dict[str, Any]) -> None:
        self.left.discard(record["node"])

    def _read_whole(self, record: dict[str, Any]) -> None:
        self.whole_since = record["since"]

    def _read_scaled(self, record: dict[str, Any]) -> None:
        self.targets[record["service"]] = record["processes"]

    def _read_exempt(self, record: dict[str, Any]) -> None:
        (self.exempt.add if record["exempt"] else self.exempt.discard)(record["name"])

    def _read_closed(self, record: dict[str, Any]) -> None:
        _put(self.closed, record["service"], Closed, record["how"])

    def _read_paused(self, record: dict[str, Any]) -> None:
        _put(self.paused, record["service"], Paused, record["how"])

    def _read_marked(self, record: dict[str, Any]) -> None:
        mark = record["mark"]
        if mark is not None:
            Health(Marked(*mark).health)  # one of a newer master is not understood
        _put(self.marked, record["node"], Marked, mark)

    def _read_suspect(self, record: dict[str, Any]) -> None:
        case = record["case"]
        if case is not None:
            case = Suspect(*case)
            if case.state not in CASES:
                raise ValueError(f"a suspect that is {case.state!r}")
            case = case._replace(deaths=[Died(*death) for death in case.deaths])
        _put(self.suspects, record["fingerprint"], Suspect, case)
        if case is None:
            is_gone(self.gone, record["fingerprint"])
        else:
            self.gone.pop(record["fingerprint"], None)

    def _read_electorate(self, record: dict[str, Any]) -> None:
        self.electorate = frozenset(record["nodes"])
        before = record.get("before")
        self.electorate_before = None if before is None else frozenset(before)

    def _read_peer(self, record: dict[str, Any]) -> None:
        self.peer = None if record["peer"] is None else Peer(*record["peer"])

    def _read_member(self, record: dict[str, Any]) -> None:
        _put(self.members, record["name"], Peer, record["peer"])


def is_gone(gone: dict[bytes, None], fingerprint: bytes) -> None:
    """Keeps this suspect among the last that were forgotten."""
    gone[fingerprint] = None
    if len(gone) > GONE_MAX:
        del gone[next(iter(gone))]


def _put(table: dict[Any, Any], key: object, kind: type[Any], fields: list[Any] | None) -> None:
    """Puts an entry at the end of a table, in place of one that there may be; None only takes that out."""
    made = None if fields is None else kind(*fields)
    table.pop(key, None)
    if made is not None:
        table[key] = made


def _pack(record: dict[str, Any]) -> bytes:
    data: bytes = msgpack.packb(record)
    return data
