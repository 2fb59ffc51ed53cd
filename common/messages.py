"""The maps of HELLO, WELCOME, REFUSED and CONTROL as tuples with names, and their checked codec.

A message travels as msgpack `[name, {field: value}]`. Reading one checks every field against its annotation: an unknown
field is ignored (version N+1 may add some), a missing field without a default or an ill-typed one is a `BadMessage`.

Annotations are what they say, not texts (`from __future__ import annotations`): typing would compile each of them, at
each start of any process.
"""

from enum import StrEnum
from typing import Any, NamedTuple, get_args

import msgpack

from . import wire
from .fields import BadMessage, checked, is_deep, is_flat, plain
from .limits import ITEMS_MAX, MAP_DEPTH, MAP_MAX, REFUSED_MAX_S


class UnknownMessage(BadMessage):
    """Nothing is wrong with it but its name: one of a newer peer, perhaps."""


# ---- hellos ---------------------------------------------------------------------------------------------------------


class ClientHello(NamedTuple):
    versions: list[int]
    session: bytes
    epoch: int = 0


class Handler(NamedTuple):
    """What the master has to know of one handler. `idempotent`: "no", "yes" or "key"."""

    idempotent: str = "no"
    timeout_ms: int = 0  # handler limit; 0 = the service's default


class Held(NamedTuple):
    """A delivery that a process received and the master has not acknowledged."""

    epoch: int
    number: int
    session: bytes
    request: int
    done: bool


class ProcessHello(NamedTuple):
    versions: list[int]
    incarnation: str
    ticket: bytes
    service: str
    version: str
    digest: str  # of the interface: two nodes that offer one service must agree on it
    handlers: dict[str, Handler]
    concurrency: int
    pid: int
    received_upto: int
    started_upto: int
    reply_sequence: int  # of the last reply it made
    held: list[Held]
    hellos: int = 0  # how many it has said: one of an older connection may arrive after this
    done: bytes = b""  # origins of what it has answered, packed as on the wire; the last DONE_MAX at most
    done_ms: int = 0  # so far back these are all; -1: since it began


ROW_RUNNING, ROW_DONE, ROW_REFUSED = 1, 2, 3


class Row(NamedTuple):
    """One row of the page of a process; `state` is one of those above."""

    number: int
    state: int
    session: bytes
    request: int
    epoch: int
    reply: bytes = b""  # its frame, if that is in the page


class End(StrEnum):
    """Why a process ended, in one word: whoever counts deaths reads this, people read the cause."""

    EXITED = "exited"  # by itself, whatever its status
    SIGNALLED = "signalled"  # by a signal that we did not send
    OUT_OF_MEMORY = "out of memory"  # by the kernel's OOM killer
    HUNG = "hung"  # by its agent: a handler exceeded its limit
    STOPPED = "stopped"  # asked for: a retirement, a plan
    LEAVING = "agent leaving"  # its agent left at once
    START = "start"  # however it ended, it was never ready: no request had anything to do with it


CRASHES = frozenset({End.EXITED, End.SIGNALLED, End.OUT_OF_MEMORY, End.HUNG})  # the others blame no request


class Exited(NamedTuple):
    """`status`: exit code, negative for a signal. `cause`: a sentence. `text`: the tail of its stderr."""

    incarnation: str
    service: str
    status: int
    cause: str
    started_upto: int
    rows: list[Row]
    text: str
    kind: str = ""  # an End; "" = an older agent does not say


class Started(NamedTuple):
    incarnation: str
    service: str
    ticket: bytes
    pid: int


class AgentHello(NamedTuple):
    versions: list[int]
    node: str
    boot: str
    epoch: int  # the highest that it has seen
    capacity: int  # processes that it has room for
    offers: list[str]  # services
    tags: dict[str, str]
    processes: list[Started]
    exits: list[Exited]  # not yet noted by a master
    intent: str
    generation: int
    embedded: bool = False  # handlers run inside an application: no reload, no scale
    leaving: bool = False
    hellos: int = 0  # of this boot, as in ProcessHello
    ended_ms: int = 0  # how long ago the last of its processes ended that had started something; -1: none did
    up_ms: int = 0  # how long ago this boot began


class OperatorHello(NamedTuple):
    versions: list[int]
    user: str


class PeerHello(NamedTuple):
    """Another master, which is not active, dials this one."""

    versions: list[int]
    name: str
    address: str  # of its own control socket
    role: str  # primary or backup
    epoch: int  # of the last active master that it knows
    takeover_ms: int = 0  # its takeover_after: promises, leases and what is relied upon are counted by it
    quorum: str = ""
    lease: str = "agents"  # who decides there which master is active; "etcd", "postgresql"


class VoterHello(NamedTuple):
    """An agent at a master that may ask for its vote."""

    versions: list[int]
    node: str
    boot: str
    epoch: int


class Welcome(NamedTuple):
    version: int
    epoch: int
    master: str  # its name
    resumed: bool = False
    frontend_port: int = 0
    backend_port: int = 0
    host: str = ""  # to use instead of the one that was dialled; "" = that one
    max_message: int = 0  # bytes of one body
    upto: int = 0  # processes: the reply sequence that the master has
    born: int = 0  # clients: which life of their session this is; another one counts its answers from 1
    state: str = "active"  # or "standby", "candidate": then try the other master
    lease_ms: int = 0  # agents: how long each beat that answers one of the master is a lease; 0 = none is needed
    other: str = ""  # of a standby: control address of the master that it follows


class Refusal(NamedTuple):
    """`code`: incompatible, busy, unknown, interface, name in use, stale, standby, denied."""

    code: str
    message: str
    retry_after_ms: int
    versions: list[int]

    @property
    def wait_s(self) -> float:
        """For so long it is to be left alone."""
        return min(max(0.0, self.retry_after_ms / 1000), REFUSED_MAX_S)

    def frame(self) -> bytes:
        return framed(wire.REFUSED, 0, self)


# ---- agent → master -------------------------------------------------------------------------------------------------


class Beat(NamedTuple):
    beat: int
    unheard_ms: int = 0  # how long ago the agent last heard the master: its beats alone would prove one way only
    heard: int = 0  # the newest beat of the master that it has seen: a lease, counted from when that was sent
    epoch: int = 0  # the highest that it knows


class Ending(NamedTuple):
    """A handler exceeded its limit: this process is being ended, nothing more for it. Its exit follows."""

    incarnation: str


class Failing(NamedTuple):
    """`text`: the tail of what a process wrote before it ended."""

    service: str
    failures: int  # in a row; 0 = it is well again
    retry_in_ms: int
    text: str
    cause: str = ""  # one line that says why; "" = an older agent does not say


class Recalled(NamedTuple):
    incarnation: str
    floor: int
    started_upto: int
    rows: list[Row] = []  # of deliveries that are done, with the replies that were asked for


class Usage(NamedTuple):
    rss: dict[str, int]  # incarnation → bytes


class Leaving(NamedTuple):
    deadline_ms: int


class Unwell(NamedTuple):
    """What a port check of the plan found, told when it changes. `text`: why it fails; "" = it is well."""

    service: str
    text: str


class Reload(NamedTuple):
    """HUP at an agent: its processes of these services are to be replaced, one at a time."""

    services: list[str]


# ---- master → agent -------------------------------------------------------------------------------------------------


class PortCheck(NamedTuple):
    """Something that a service needs, reachable from its node: a TCP connection comes about within the time-out."""

    address: str  # host:port
    every_ms: int
    timeout_ms: int


class Plan(NamedTuple):
    processes: dict[str, int]  # service → count
    limits_ms: dict[str, int] = {}  # service → handler limit of handlers that declare none
    checks: dict[str, PortCheck] = {}  # service → what its node looks at


class Retire(NamedTuple):
    incarnation: str
    grace_ms: int


class Recall(NamedTuple):
    incarnation: str
    upto: int
    since: int = 0  # the first delivery whose reply may be waiting there, and is told if it is done; 0: none


class Intent(NamedTuple):
    state: str
    generation: int
    by: str
    reason: str
    version: str = ""  # the version that `rejoin --version` announced; "" = none


class Noted(NamedTuple):
    incarnation: str


class Leave(NamedTuple):
    pass


# ---- master ↔ master, and votes (docs/STANDBY.md) -------------------------------------------------------------------


class Replica(NamedTuple):
    """The next records; `sequence` is the number of the last of them."""

    sequence: int
    records: list[bytes]
    first: bool = False  # of a snapshot: forget all earlier ones
    more: bool = False  # the snapshot goes on in the next message


class Pulse(NamedTuple):
    number: int
    epoch: int
    sequence: int  # of the last Replica


class Promise(NamedTuple):
    """Its sender does not stand for `lasts_ms` from now."""

    number: int  # of the Pulse that it answers
    lasts_ms: int
    sequence: int  # everything up to it is durable there
    voters: int = -1  # nodes of the electorate that it could ask for a vote; -1: it does not say
    unable: str = ""  # why it could not have the lease of an engine, which would keep it from taking over


class Closing(NamedTuple):
    epoch: int
    handover: bool
    to: str = ""  # of several standbys, the one that goes first


class Vote(NamedTuple):
    epoch: int
    master: str
    lease_ms: int  # a grant is the first lease
    poll: bool = False  # would it be granted? The answer is the same, and binds nobody


class Grant(NamedTuple):
    """`before`: the highest epoch that it had seen until then; -1: it does not know any more. `poll`: it would."""

    epoch: int
    before: int = -1
    poll: bool = False


class Deny(NamedTuple):
    epoch: int
    seen: int
    wait_ms: int
    why: str


class Won(NamedTuple):
    epoch: int


class Release(NamedTuple):
    epoch: int


# ---- operator ↔ master ----------------------------------------------------------------------------------------------


class Verb(NamedTuple):
    id: int
    verb: str
    args: dict[str, Any]


class Result(NamedTuple):
    """`exit` is the exit code of the command line; `data` the answer or `{"error": sentence, …}`."""

    id: int
    ok: bool
    exit: int
    data: dict[str, Any]


class Follow(NamedTuple):
    id: int
    since: int


class Happened(NamedTuple):
    id: int
    events: list[dict[str, Any]]


Message = (
    ClientHello
    | ProcessHello
    | AgentHello
    | OperatorHello
    | PeerHello
    | VoterHello
    | Welcome
    | Refusal
    | Beat
    | Started
    | Exited
    | Ending
    | Failing
    | Recalled
    | Usage
    | Leaving
    | Unwell
    | Reload
    | Plan
    | Retire
    | Recall
    | Intent
    | Noted
    | Leave
    | Replica
    | Pulse
    | Promise
    | Closing
    | Vote
    | Grant
    | Deny
    | Won
    | Release
    | Verb
    | Result
    | Follow
    | Happened
)
# Without these 1 MiB of empty lists would become 60 MiB of objects.
_AT_MOST = {"max_array_len": ITEMS_MAX, "max_map_len": ITEMS_MAX}
_TYPES: dict[str, Any] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """Raises ValueError when the message is larger than MAP_MAX: the sender is told, not the transport."""
    kind: Any = type(message)
    fields = message._asdict() if is_flat(kind) else plain(message)
    data: bytes = msgpack.packb([kind.__name__, fields], unicode_errors="backslashreplace")  # file names in sentences
    if len(data) > MAP_MAX:
        raise ValueError(f"{kind.__name__} is {len(data)} bytes, more than {MAP_MAX}")
    return data


def framed(kind: int, token: int, message: Message) -> bytes:
    """The frame of a HELLO, WELCOME, REFUSED or CONTROL. Raises ValueError as `encode` does."""
    return wire.head(kind, token) + encode(message)


def decode(data: bytes) -> Message:
    """Raises BadMessage, and nothing else, whatever the bytes are."""
    name, fields = _unpacked(data)
    kind = _TYPES.get(name)
    if kind is None:
        raise UnknownMessage(f"no message is called {name[:40]!r}")
    if not is_flat(kind) and is_deep(fields, MAP_DEPTH):
        raise BadMessage("nested too deeply")
    try:
        message: Message = checked(kind, fields)
    except BadMessage as error:
        raise BadMessage(f"{kind.__name__}{error}") from None
    return message


def versions_of(hello: bytes) -> list[int]:
    """Those that a peer speaks whose HELLO is not understood otherwise; empty where it does not say."""
    try:
        speaks: _Speaks = checked(_Speaks, _unpacked(hello)[1])
    except BadMessage:
        return []
    return speaks.versions


class _Speaks(NamedTuple):
    """What every HELLO of every version has."""

    versions: list[int]


def _unpacked(data: bytes) -> tuple[str, Any]:
    if len(data) > MAP_MAX:
        raise BadMessage("too large")
    try:
        value = msgpack.unpackb(data, strict_map_key=False, ext_hook=_no_extension, **_AT_MOST)
    except Exception as error:  # msgpack raises eight unrelated types on hostile bytes
        raise BadMessage(f"not a map: {error}") from None
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):
        raise BadMessage("not [name, map]")
    return value[0], value[1]


def _no_extension(code: int, data: bytes) -> Any:
    raise BadMessage(f"extension type {code}")
