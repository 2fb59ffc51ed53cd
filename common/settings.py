"""Every setting of rota, declared once: type, default, what it is, why it is so.

Durations are seconds (float), sizes bytes (int), in Python. `common/config.py` fills these
sections from flags, environment and file; `docs/CONFIG.md` is generated from them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from . import host, limits
from .declare import Computed, Rule, nested, setting
from .kinds import (
    AFFINITY,
    APP,
    COOKIE,
    HOST,
    HOST_PORT,
    LISTEN,
    METHOD,
    ROUTE,
    Address,
    Anything,
    Boolean,
    Choice,
    Directory,
    Duration,
    File,
    Integer,
    Name,
    Network,
    Optional,
    Several,
    Size,
    Table,
    Text,
    TimeOfDay,
    Wording,
    next_port,
    split_address,
)
from .units import format_duration

LEAST_LOADED, ROUND_ROBIN = "least-loaded", "round-robin"
OFF, COMMON, JSON = "off", "common", "json"  # forms of a gateway's access log
X_FORWARDED, FORWARDED = "x-forwarded", "forwarded"  # how proxies tell of the client
HEARTBEAT, PORT, DUMMY, REQUEST = "heartbeat", "port", "dummy", "request"  # how deep a health check looks

_HOST_NAME = Computed(host.name, "the host's name")
_CPUS = Computed(host.usable_cpus, "the cores this machine or container may use")


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings:
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
        "most bytes of requests that wait in the queues of all services together",
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
        "a client that is away longer learns MaybeExecuted for what it had in flight",
    )
    answers_bytes: int = setting(
        16 * 2**20,
        Size("64KiB", "4GiB"),
        "most bytes of answers kept for one session until the client acknowledges them",
        "beyond it only the number is kept, and a resend learns MaybeExecuted; a client that "
        "has this much to read and reads nothing for a second is cut",
    )
    answers_total: int = setting(
        512 * 2**20,
        Size("1MiB", "1TiB"),
        "most bytes of answers kept for all sessions together",
        "a bound on memory whatever the number of clients: the session that owes most is cut first",
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
        "some 40 MiB; the one heard of last is kept longest, and one that was forgotten mostly finds its place again",
    )

    def frontend_address(self) -> str:
        return self.frontend or next_port(self.bind, limits.FRONTEND_OFFSET)

    def backend_address(self) -> str:
        return self.backend or next_port(self.bind, limits.BACKEND_OFFSET)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaveSettings:
    """A slave node: what it offers, to which master, and how its processes start and stop."""

    section: ClassVar[str] = "slave"

    app: str | None = setting(
        None,
        Optional(APP),
        "what to serve: module:attribute or file.py:attribute; without :attribute, the only Worker there",
        "there is no application that could be assumed",
        flags=("APP",),
        reload=False,
    )
    name: str = setting(
        _HOST_NAME,
        Name(),
        "the node's name, unique in the cluster and the same after each restart",
        "intents are kept by name: a node that was drained comes back drained",
        flags=("--name",),
        reload=False,
    )
    master: tuple[str, ...] = setting(
        (f"tcp://127.0.0.1:{limits.CONTROL_PORT}",),
        Several(Address(), limit=8),
        "control addresses of the masters, the primary first",
        "the master of a first try runs on the same machine",
        flags=("-m", "--master"),
        reload=False,
    )
    processes: int = setting(
        _CPUS,
        Integer(1, 1024),
        "how many processes this node has room for, all services together",
        "one a core keeps the cores busy; more pays off when handlers mostly wait",
        flags=("-p", "--processes"),
    )
    threads: int = setting(
        1,
        Integer(1, limits.PAGE_ROWS),
        "how many requests a process of a WSGI application serves at once, each in a thread",
        "applications that do not say so need not be safe to be called from several threads",
        flags=("--threads",),
    )
    concurrency: int = setting(
        limits.PAGE_ROWS,
        Integer(1, limits.CONCURRENCY_MAX),
        "how many requests a process of an async application serves at once; an open WebSocket is one",
        "what one event loop can do is soon done by fewer; open WebSockets mostly wait, so more of them fit",
        flags=("--concurrency",),
    )
    service: str | None = setting(
        None,
        Optional(Name()),
        "offer the application under this name instead of its own",
        "a Worker has a name; a WSGI or ASGI application gets that of its module",
        flags=("--service",),
        reload=False,
    )
    version: str | None = setting(
        None,
        Optional(Text(limit=64)),
        "version of the application",
        "without it a file VERSION in app_dir is read at each start of a process, so that a "
        "swapped symlink brings its own version",
        flags=("--version",),
    )
    tags: Mapping[str, str] = setting(
        {},
        Table(Text(limit=64)),
        "labels to choose nodes by, as in rota drain --tag zone=a",
        "names of nodes need not say where they stand",
        flags=("--tag",),
        reload=False,
    )
    factory: bool = setting(
        False,
        Boolean(),
        "the attribute of app is a function that makes the application",
        "calling what is callable would call every WSGI application",
        flags=("--factory",),
    )
    interface: str = setting(
        "auto",
        Choice(("auto", "wsgi", "asgi", "rota")),
        "what app is: a WSGI or ASGI application, a rota.Worker, or whatever it looks like",
        "the number of its parameters, and whether it is async, tell nearly all applications apart",
        flags=("--interface",),
    )
    app_dir: str = setting(
        ".",
        Directory(),
        "directory of the application, kept as typed and entered at each start of a process",
        "resolved only once, a symlink would go on naming the old release",
        flags=("--app-dir",),
    )
    python: str | None = setting(
        None,
        Optional(File()),
        "interpreter of the processes; without it, the one that runs the agent",
        "a virtual environment a release needs the one of its own release",
        flags=("--python",),
    )
    state: str | None = setting(
        None,
        Optional(Directory()),
        "directory for what must survive a restart of the agent: intent, output of processes",
        "without it both are kept in a temporary directory and go with the agent",
        flags=("--state",),
        reload=False,
    )
    start_timeout: float = setting(
        60.0,
        Duration("1s", "1h"),
        "how long a process may take until it is ready; then the start counts as failed",
        "an import that hangs must show as a failure; large models need more",
    )
    drain_deadline: float = setting(
        60.0,
        Duration("0s", "1d"),
        "how long TERM waits for requests in flight before the agent leaves",
        "with stop_grace it stays below the 90 s of TimeoutStopSec, after which systemd kills",
    )
    stop_grace: float = setting(
        10.0,
        Duration("0s", "1h"),
        "how long a process that is told to stop may take for its on_stop hooks; then SIGKILL",
        "closing connections takes moments; docker stop gives 10 s too",
    )


Words = Mapping[str, str]  # "text", "code"; see kinds.Wording


def _told(when: str) -> Any:
    why = "rota's own words name the cause; they stay in the error's details"
    return setting(None, Optional(Wording(), word="default"), f"what callers are told when {when}", why)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """How it is found out whether a node serves this service well, and what follows when it does not."""

    section: ClassVar[str] = "service.health"

    check: str = setting(
        HEARTBEAT,
        Choice((HEARTBEAT, PORT, DUMMY, REQUEST)),
        "how deep to look: the agent's beat, a port on the node, any answer of a process, an expected answer",
        "beats and what happens to real requests tell most; the deeper checks need to know the application",
    )
    port: str | None = setting(
        None,
        Optional(HOST_PORT),
        "HOST:PORT that the node must be able to connect to, for check = port",
        "there is no dependency that could be assumed",
    )
    handler: str | None = setting(
        None,
        Optional(Name()),
        "handler that dummy and request call; without it, the application's health function",
        "an application without a health function answers all the same, which is what dummy asks",
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
        "two happen to a node that only restarts a process",
    )
    blacklist: float = setting(
        5.0,
        Duration("100ms", "1h"),
        "how long a node is on the blacklist for the first time; each further time doubles it",
        "about the time in which a process is started anew",
    )
    blacklist_max: float = setting(
        300.0,
        Duration("100ms", "1d"),
        "longest time on the blacklist",
        "a node that was mended must not have to wait for an operator",
    )
    eject: bool = setting(
        True,
        Boolean(),
        "put nodes that are ill on the blacklist; false only shows them",
        "a node that loses what it is given should be given nothing; false where a human is to decide",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """A gateway: where it takes HTTP requests, whom it believes, how much it bears."""

    section: ClassVar[str] = "http"

    bind: str | None = setting(
        None,
        Optional(LISTEN, word="off"),
        "where to take HTTP requests; off: rota master starts no gateway, and rota gateway takes 0.0.0.0:8080",
        "a master that is only called by clients of its own needs no open HTTP port",
        flags=("--bind",),
        reload=False,
    )
    master: tuple[str, ...] = setting(
        (f"tcp://127.0.0.1:{limits.CONTROL_PORT}",),
        Several(Address(), limit=8),
        "control addresses of the masters that a gateway calls, the primary first",
        "the master of a first try runs on the same machine; a gateway that a master starts calls that one",
        flags=("-m", "--master"),
        reload=False,
    )
    tls_certificate: str | None = setting(
        None,
        Optional(File(), word="off"),
        "certificate in PEM form, with those that it depends on behind it: HTTPS is spoken; off: plain HTTP",
        "in front of a gateway there often is a balancer that has it; HUP reads the file again",
        flags=("--tls-cert",),
        reload=False,
    )
    tls_key: str | None = setting(
        None,
        Optional(File(), word="off"),
        "its key in PEM form, without a password; off: it is in the certificate's file",
        "some tools write both into one file",
        flags=("--tls-key",),
        reload=False,
    )
    http2: bool = setting(
        True,
        Boolean(),
        "speak HTTP/2 with clients that offer it: with a certificate, and if h2 is there (the extra http)",
        "browsers open one connection in place of six; it costs a gateway several times as much a request",
        reload=False,
    )
    streams: int = setting(
        100,
        Integer(1, 1000),
        "most requests at once of one HTTP/2 connection; one more is refused, to be sent again",
        "RFC 9113 recommends no fewer; what they hold in memory is bounded for all of them",
        reload=False,
    )
    workers: int = setting(
        1,
        Integer(1, 64),
        "gateway processes that share the address",
        "one takes in more than a master on the same two cores can give out",
        flags=("--workers",),
        reload=False,
    )
    timeout: float = setting(
        30.0,
        Duration("10ms", "1d"),
        "deadline of a request, from its last byte to the answer; then 504",
        "that of any call that names none",
        reload=False,
    )
    access_log: str = setting(
        OFF,
        Choice((OFF, COMMON, JSON)),
        "a line a request on stdout, in the common format or as JSON",
        "it costs a fifth of a gateway's time, and a balancer in front often has one already",
        flags=("--access-log",),
        reload=False,
    )
    trusted_proxies: tuple[str, ...] | None = setting(
        None,
        Optional(Several(Network(), limit=256), word="none"),
        "peers that may say who the client is (`forwarded` says how); what all others say of it is dropped",
        "anybody can write such a header, and applications take it for the truth",
        reload=False,
    )
    forwarded: str = setting(
        X_FORWARDED,
        Choice((X_FORWARDED, FORWARDED)),
        "which headers trusted proxies write: X-Forwarded-For, -Proto and -Host, or Forwarded; the others are dropped",
        "most write the older ones; what a proxy does not write itself it passes on, whoever wrote it",
        reload=False,
    )
    ready_after: float = setting(
        5.0,
        Duration("100ms", "10m"),
        "how long no master answers, or no process may be given work, until GET /-/ready says 503",
        "a master that is restarted is back sooner; a balancer then goes to another gateway",
        reload=False,
    )
    lead: float = setting(
        0.0,
        Duration("0s", "10m"),
        "time from TERM, when /-/ready begins to say 503, until the listener closes",
        "without a balancer that asks it would only delay; with one, as long as that takes to notice",
        reload=False,
    )
    head_timeout: float = setting(
        10.0,
        Duration("100ms", "10m"),
        "time for the request line and headers to come in, from their first byte; then 408",
        "a browser sends them at once; whoever trickles them holds a connection",
        reload=False,
    )
    body_timeout: float = setting(
        10.0,
        Duration("100ms", "1h"),
        "grace for the body to come in; beyond it body_rate holds",
        "outlasts a stall of a mobile network",
        reload=False,
    )
    body_rate: int = setting(
        500,
        Size("1B", "1GiB"),
        "least bytes a second, on average, that a body comes in with; then 408",
        "slower than any modem; no process is held meanwhile, only memory",
        reload=False,
    )
    write_timeout: float = setting(
        10.0,
        Duration("100ms", "1h"),
        "grace for an answer to be taken by its reader; beyond it write_rate holds",
        "outlasts a stall of a mobile network",
        reload=False,
    )
    write_rate: int = setting(
        8 * 1024,
        Size("1B", "1GiB"),
        "least bytes a second, on average, that a reader takes an answer with; then it is cut",
        "no process is held meanwhile, only memory, but up to master.max_message of it",
        reload=False,
    )
    idle_timeout: float = setting(
        5.0,
        Duration("100ms", "1h"),
        "how long a connection is kept open between two requests",
        "a page's next requests come within seconds; what idles costs memory and a descriptor",
        reload=False,
    )
    connections: int = setting(
        4096,
        Integer(1, 1_000_000),
        "most connections of one gateway process; one more is closed at once",
        "some 10 KiB each without what they send, and one descriptor",
        reload=False,
    )
    connections_per_address: int = setting(
        256,
        Integer(1, 1_000_000),
        "most connections from one address, but a trusted proxy's",
        "a browser opens six; an office behind one address has many of them",
        reload=False,
    )
    max_line: int = setting(
        8 * 1024,
        Size("256B", "64KiB"),
        "longest request line; then 414",
        "RFC 9112 recommends at least 8,000 bytes",
        reload=False,
    )
    max_head: int = setting(
        32 * 1024,
        Size("1KiB", "256KiB"),
        "most bytes of request line and headers; then 431",
        "twice what large cookies and tokens need",
        reload=False,
    )
    max_headers: int = setting(
        100,
        Integer(1, 1000),
        "most headers of a request; then 431",
        "browsers send 20, proxies add a few",
        reload=False,
    )
    max_body: int = setting(
        128 * 1024 * 1024,
        Size("0B", "1TiB"),
        "largest body of a request; then 413",
        "uploads of documents and pictures; it waits in a spool, not in memory",
        reload=False,
    )
    max_call: int = setting(
        64 * 1024,
        Size("1KiB", "960KiB"),
        "largest body of a call in JSON; then 413",
        "while a gateway process reads JSON it serves nobody else: 64 KiB take it 3 ms, 12 ms at worst",
        reload=False,
    )
    spool_memory: int = setting(
        1024 * 1024,
        Size("64KiB", "1GiB"),
        "bytes of one large body, up or down, that are kept in memory before they become a file",
        "most that are no files at all are smaller; 32 MiB of all bodies are the most in any case",
        reload=False,
    )
    spool_max: int = setting(
        4 * 1024 * 1024 * 1024,
        Size("1MiB", "64TiB"),
        "bytes that the large bodies of one gateway process may have in memory and files; then 503",
        "a disk has room for it, and it is not left to clients to fill that",
        reload=False,
    )
    spool_dir: str = setting(
        "/var/tmp",
        Directory(),
        "where the files of large bodies are; they have no name, and go with their gateway",
        "on many systems /tmp is memory",
        reload=False,
    )
    drain: float = setting(
        30.0,
        Duration("0s", "1d"),
        "time from the closing of the listener until answers and WebSockets that are still going on are ended",
        "downloads end by then; a stream of events never does, and its client asks again elsewhere",
        reload=False,
    )
    websocket_message: int = setting(
        1024 * 1024,
        Size("1KiB", "15MiB"),
        "largest message that a client may send over a WebSocket; then it is closed with 1009",
        "gateway and process each hold one whole, for every WebSocket",
        reload=False,
    )
    websocket_ping: float = setting(
        20.0,
        Duration("100ms", "1d"),
        "silence of a WebSocket after which its client is pinged",
        "shorter than the patience of routers and balancers, which forget silent connections within a minute",
        reload=False,
    )
    websocket_pong: float = setting(
        20.0,
        Duration("100ms", "1h"),
        "time for a client to answer a ping, or say anything; then the WebSocket is cut",
        "outlasts a stall of a mobile network; who is gone holds a place in a process until then",
        reload=False,
    )
    websocket_deflate: bool = setting(
        False,
        Boolean(),
        "compress WebSocket messages for clients that offer it (permessage-deflate)",
        "it costs more of a gateway's time than all else that it does with a message",
        reload=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHttpSettings:
    """How one service is reached over HTTP."""

    section: ClassVar[str] = "service.http"

    routes: tuple[str, ...] | None = setting(
        None,
        Optional(Several(ROUTE, limit=64), word="none"),
        "which requests are its own: path prefixes, with a host before it where it is for one host only",
        "what is served to the world is said, not guessed",
        reload=False,
    )
    keys: bool = setting(
        False,
        Boolean(),
        "take the header Idempotency-Key of a request as the key of its call",
        "an answer that was recorded is given to whoever sends the key again, so keys must not be guessable",
        reload=False,
    )
    retry_methods: tuple[str, ...] | None = setting(
        None,
        Optional(Several(METHOD, limit=16), word="none"),
        "methods that may run again when their process is lost, besides GET, HEAD and OPTIONS",
        "PUT and DELETE are idempotent in the books; only the application knows whether they are in its code",
        reload=False,
    )
    pages: str | None = setting(
        None,
        Optional(Directory(), word="none"),
        "directory of the bodies that a gateway answers faults with (503.html, 5xx.json, maintenance.html, …)",
        "there is no look that fits all sites; HUP reads the files again",
        reload=False,
    )
    calls: bool = setting(
        False,
        Boolean(),
        "let handlers be called with POST /-/call/SERVICE/HANDLER and JSON",
        "whoever reaches the gateway can then call every handler of the service",
        reload=False,
    )
    affinity: str | None = setting(
        None,
        Optional(AFFINITY, word="none"),
        "what says whose a request is, so that those of one user go to the same process: a cookie, or a header",
        "a session waits for its process while others idle; only applications that remember need that",
        reload=False,
    )
    affinity_cookie: str = setting(
        "rota_session",
        COOKIE,
        "the name of the cookie of affinity",
        "two services on one host share it: the value is only a hash's food",
        reload=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
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
        "what nodes have room for is meant to be used",
    )
    grow_after: float = setting(
        0.5,
        Duration("10ms", "10m"),
        "how long the oldest request waits in the queue before a process is added",
        "about the start of an interpreter: growing sooner would answer to bursts that are over",
    )
    shrink_after: float = setting(
        300.0,
        Duration("1s", "1d"),
        "how long a process must have been spare before it is taken away",
        "outlasts what comes each minute; a process too many costs memory, one too few waits",
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
        "a longer queue is only later bad news; 0 refuses what no process can take now",
    )
    queue_timeout: float = setting(
        30.0,
        Duration("1ms", "1d"),
        "how long a request waits in the queue before its caller gets Overloaded",
        "the default timeout of a call: sooner would refuse work that is still waited for",
    )
    pause_for: float = setting(
        30.0,
        Duration("100ms", format_duration(limits.PAUSE_MAX_S)),
        "how long `rota pause` holds requests when nobody says how long, or resumes",
        "the default timeout of a call: what is held longer nobody waits for",
    )
    credit: int | None = setting(
        None,
        Optional(Integer(1, limits.PAGE_ROWS), word="auto"),
        "requests that one process may hold at a time",
        f"auto gives 1 while requests are long and up to {limits.CREDIT_MAX} when they take less "
        "than 2 ms: more keeps short ones flowing but parks work behind a long one",
    )
    balance: str = setting(
        LEAST_LOADED,
        Choice((LEAST_LOADED, ROUND_ROBIN)),
        "which process is next: fewest in flight for its weight, or each in turn",
        "in turn gives a slow process as much as a fast one",
    )
    weights: Mapping[str, int] = setting(
        {},
        Table(Integer(1, 256)),
        "node = weight, its share of the requests; a node that is not named has 1",
        "equal until machines differ; to give a node nothing, drain it",
    )
    ramp: float = setting(
        5.0,
        Duration("0s", "1h"),
        "time over which the share of a node that joined rises to its full",
        "cold caches and connections; 0 gives it everything at once",
    )
    handler_timeout: float = setting(
        30.0,
        Duration("10ms", "7d"),
        "limit of handlers that declare none; a process that exceeds it is ended",
        "the default timeout of a call; without any limit a hung process is lost capacity",
    )
    quarantine_for: float = setting(
        3600.0,
        Duration("1s", "30d"),
        "how long requests with a payload that two processes died of are refused",
        "then one is tried again, alone: a poison costs a process an hour, a wrong verdict heals by itself",
    )
    max_attempts: int = setting(
        2,
        Integer(1, 10),
        "how often a request of an idempotent handler is started when its process is lost",
        "lost with two processes it is the request that is at fault; what had not started never counts",
    )
    retry_percent: int = setting(
        20,
        Integer(0, 100),
        "started and lost requests that may run again, in percent of those answered in the last 10 s",
        "a service in trouble gets a fifth more load from it, not twice its load",
    )
    retry_per_s: int = setting(
        10,
        Integer(0, 100_000),
        "and so many a second besides",
        "a service with little traffic would have no budget at all",
    )
    keys_for: float = setting(
        600.0,
        Duration("0s", "7d"),
        "how long the answer to a call with an idempotency key is given to repeated calls of it",
        "outlasts the retries of a caller that was restarted; it starts when the call ends",
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
        "hides leaks; processes are replaced one at a time, so it needs no jitter",
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

    def bounds(self, offered: int) -> tuple[int, int]:
        """Fewest and most processes to run where the nodes offer room for `offered`."""
        most = offered if self.max_processes is None else min(self.max_processes, offered)
        least = most if self.min_processes is None else min(self.min_processes, most)
        return least, most


Settings = (
    MasterSettings
    | SlaveSettings
    | HttpSettings
    | ServiceSettings
    | HealthSettings
    | FaultSettings
    | ServiceHttpSettings
)

SECTIONS: Mapping[str, type[Settings]] = {
    section.section: section
    for section in (
        MasterSettings,
        SlaveSettings,
        HttpSettings,
        ServiceSettings,
        HealthSettings,
        FaultSettings,
        ServiceHttpSettings,
    )
}
OF_A_SERVICE = tuple(name.partition(".")[2] for name in SECTIONS if name.startswith("service."))  # sections within it


def heading(name: str, service: str = "NAME") -> str:
    """The section as it stands in a file: `[service.NAME.fault]`."""
    first, *rest = name.split(".")
    return f"[{'.'.join([first, *([service] if first == 'service' else []), *rest])}]"


def class_of(section: Sequence[str]) -> type[Settings]:
    """Of a path in a file, such as ("service", "orders", "fault")."""
    return SECTIONS[".".join((section[0], *section[2:]))]


def _same_port(one: str, other: str) -> bool:
    ports = [parts[1] for parts in map(split_address, (one, other)) if parts]
    return len(ports) == 2 and ports[0] == ports[1] != "*"


def _no_room_for_ports(master: MasterSettings) -> bool:
    port = (split_address(master.bind) or ("", "*"))[1]
    used = [limits.FRONTEND_OFFSET] if master.frontend is None else []
    used += [limits.BACKEND_OFFSET] if master.backend is None else []
    return port != "*" and int(port) + max(used, default=0) > 65535


RULES: Mapping[type[Settings], tuple[Rule, ...]] = {
    MasterSettings: (
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
            "must leave room for frontend and backend, its port + 1 and + 2, up to 65535",
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
    ),
    ServiceSettings: (
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
    ),
    HealthSettings: (
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
    ),
}
