"""Gateways, and what a service has of its own at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import limits
from ..declare import Section, setting
from ..kinds import (
    AFFINITY,
    COOKIE,
    LISTEN,
    METHOD,
    ROUTE,
    Address,
    Boolean,
    Choice,
    Directory,
    Duration,
    File,
    Integer,
    Network,
    Optional,
    Several,
    Size,
)

OFF, COMMON, JSON = "off", "common", "json"  # forms of a gateway's access log
X_FORWARDED, FORWARDED = "x-forwarded", "forwarded"  # how proxies tell of the client


@dataclass(init=False, repr=False, eq=False, slots=True)
class HttpSettings(Section):
    """A gateway: where it takes HTTP requests, whom it believes, how much it accepts."""

    section: ClassVar[str] = "http"
    reloads: ClassVar[bool] = False

    bind: str | None = setting(
        None,
        Optional(LISTEN, word="off"),
        "where to take HTTP requests; off: rota master starts no gateway, and rota gateway takes 0.0.0.0:8080",
        "a master that only rota's own clients call needs no open HTTP port",
        flags=("--bind",),
    )
    master: tuple[str, ...] = setting(
        (f"tcp://127.0.0.1:{limits.CONTROL_PORT}",),
        Several(Address(), limit=limits.MASTERS_MAX),
        "control addresses of the masters that a gateway calls, the primary first",
        "at a first try the master runs on the same machine; a gateway that a master starts calls that one, the one "
        "that it backs up, and those that are named here",
        flags=("-m", "--master"),
    )
    tls_certificate: str | None = setting(
        None,
        Optional(File(), word="off"),
        "certificate in PEM form, with those that it depends on behind it, for HTTPS; off: plain HTTP",
        "often a balancer in front of the gateway has it; HUP reads the file again",
        flags=("--tls-cert",),
    )
    tls_key: str | None = setting(
        None,
        Optional(File(), word="off"),
        "its key in PEM form, without a password; off: it is in the certificate's file",
        "some tools write both into one file",
        flags=("--tls-key",),
    )
    http2: bool = setting(
        True,
        Boolean(),
        "speak HTTP/2 with clients that offer it: with a certificate, and if h2 is there (the extra http)",
        "browsers open one connection instead of six; each request costs a gateway several times as much",
    )
    streams: int = setting(
        100,
        Integer(1, 1000),
        "most requests at once on one HTTP/2 connection; one more is refused, to be sent again",
        "RFC 9113 recommends no fewer; what they hold in memory is bounded for all of them together",
    )
    workers: int = setting(
        1,
        Integer(1, 64),
        "gateway processes that share the address",
        "one takes in more than a master on the same two cores can dispatch",
        flags=("--workers",),
    )
    timeout: float = setting(
        30.0,
        Duration("10ms", "1d"),
        "deadline of a request, from its last byte to the answer; then 504",
        "the default timeout of a call",
    )
    access_log: str = setting(
        OFF,
        Choice((OFF, COMMON, JSON)),
        "a line for each request on stdout, in the common format or as JSON",
        "it costs a fifth of a gateway's time, and a balancer in front often has one already",
        flags=("--access-log",),
    )
    trusted_proxies: tuple[str, ...] | None = setting(
        None,
        Optional(Several(Network(), limit=256), word="none"),
        "peers that may say who the client is (`forwarded` says how); what all others say of it is dropped",
        "anybody can write such a header, and applications believe it",
    )
    forwarded: str = setting(
        X_FORWARDED,
        Choice((X_FORWARDED, FORWARDED)),
        "which headers trusted proxies write: X-Forwarded-For, -Proto and -Host, or Forwarded; the others are dropped",
        "most write the older ones; headers that a proxy does not write itself it passes on, whoever wrote them",
    )
    ready_after: float = setting(
        5.0,
        Duration("100ms", "10m"),
        "how long no master answers, or no process may be given work, before GET /-/ready says 503",
        "a restarted master is back sooner; at 503 a balancer goes to another gateway",
    )
    lead: float = setting(
        0.0,
        Duration("0s", "10m"),
        "time from TERM, when /-/ready begins to say 503, until the listener closes",
        "without a balancer that asks, it would only delay; with one, set it to the time that takes to notice",
    )
    head_timeout: float = setting(
        10.0,
        Duration("100ms", "10m"),
        "time for the request line and headers to arrive, from their first byte; then 408",
        "a browser sends them at once; a client that trickles them holds a connection",
    )
    body_timeout: float = setting(
        10.0,
        Duration("100ms", "1h"),
        "grace for the body to arrive; beyond it body_rate holds",
        "outlasts a stall of a mobile network",
    )
    body_rate: int = setting(
        500,
        Size("1B", "1GiB"),
        "fewest bytes a second, on average, at which a body may arrive; below that 408",
        "slower than any modem; a slow body holds no process, only memory",
    )
    write_timeout: float = setting(
        10.0,
        Duration("100ms", "1h"),
        "grace for a reader to take an answer; beyond it write_rate holds",
        "outlasts a stall of a mobile network",
    )
    write_rate: int = setting(
        8 * 1024,
        Size("1B", "1GiB"),
        "fewest bytes a second, on average, at which a reader may take an answer; below that it is cut",
        "a slow reader holds no process, only memory, but up to master.max_message of it",
    )
    idle_timeout: float = setting(
        5.0,
        Duration("100ms", "1h"),
        "how long a connection is kept open between two requests",
        "a page's next requests come within seconds; an idle connection costs memory and a descriptor",
    )
    connections: int = setting(
        4096,
        Integer(1, 1_000_000),
        "most connections of one gateway process; one more is closed at once",
        "each costs some 10 KiB besides what it sends, and one descriptor",
    )
    connections_per_address: int = setting(
        256,
        Integer(1, 1_000_000),
        "most connections from one address, except a trusted proxy's",
        "a browser opens six; an office behind one address has many browsers",
    )
    max_line: int = setting(
        8 * 1024,
        Size("256B", "64KiB"),
        "longest line of a head: of the request line (then 414), and of a header field (then 431)",
        "RFC 9112 recommends at least 8,000 bytes",
    )
    max_head: int = setting(
        32 * 1024,
        Size("1KiB", "256KiB"),
        "most bytes of request line and headers; then 431",
        "twice what large cookies and tokens need",
    )
    max_headers: int = setting(
        100,
        Integer(1, 1000),
        "most headers of a request; then 431",
        "browsers send 20, proxies add a few",
    )
    max_body: int = setting(
        128 * 1024 * 1024,
        Size("0B", "1TiB"),
        "largest body of a request; then 413",
        "enough for uploads of documents and pictures; a body waits in a spool, not in memory",
    )
    max_call: int = setting(
        64 * 1024,
        Size("1KiB", "960KiB"),
        "largest body of a call in JSON; then 413",
        "while a gateway process reads JSON it serves nobody else: 64 KiB take 3 ms, at worst 12 ms",
    )
    spool_memory: int = setting(
        1024 * 1024,
        Size("64KiB", "1GiB"),
        "bytes of one large body, up or down, that are kept in memory before it becomes a file",
        "most bodies that are not files are smaller; all bodies together have 32 MiB at most in any case",
    )
    spool_max: int = setting(
        4 * 1024 * 1024 * 1024,
        Size("1MiB", "64TiB"),
        "bytes that the large bodies of one gateway process may take in memory and files; then 503",
        "a disk has room for it, and clients cannot fill the disk",
    )
    spool_dir: str = setting(
        "/var/tmp",
        Directory(),
        "where the files of large bodies are; they have no name, and vanish with their gateway",
        "on many systems /tmp is in memory",
    )
    drain: float = setting(
        30.0,
        Duration("0s", "1d"),
        "time from the closing of the listener until answers and WebSockets still in progress are ended",
        "downloads end by then; a stream of events never does, and its client reconnects elsewhere",
    )
    websocket_message: int = setting(
        1024 * 1024,
        Size("1KiB", "15MiB"),
        "largest message that a client may send over a WebSocket; then it is closed with 1009",
        "gateway and process each hold one whole message for every WebSocket",
    )
    websocket_ping: float = setting(
        20.0,
        Duration("100ms", "1d"),
        "silence of a WebSocket after which its client is pinged",
        "shorter than the patience of routers and balancers, which forget silent connections within a minute",
    )
    websocket_pong: float = setting(
        20.0,
        Duration("100ms", "1h"),
        "time for a client to answer a ping, or say anything; then the WebSocket is cut",
        "outlasts a stall of a mobile network; a client that is gone holds a place in a process until then",
    )
    websocket_deflate: bool = setting(
        False,
        Boolean(),
        "compress WebSocket messages for clients that offer it (permessage-deflate)",
        "it costs more of a gateway's time than everything else that it does with a message",
    )


@dataclass(init=False, repr=False, eq=False, slots=True)
class ServiceHttpSettings(Section):
    """How one service is reached over HTTP."""

    section: ClassVar[str] = "service.http"
    reloads: ClassVar[bool] = False

    routes: tuple[str, ...] | None = setting(
        None,
        Optional(Several(ROUTE, limit=64), word="none"),
        "which requests are its own: path prefixes, with a host before it where it is for one host only",
        "what is served to the world is declared, not guessed",
    )
    keys: bool = setting(
        False,
        Boolean(),
        "take the header Idempotency-Key of a request as the key of its call",
        "an answer that was recorded is given to whoever sends the key again, so keys must not be guessable",
    )
    retry_methods: tuple[str, ...] | None = setting(
        None,
        Optional(Several(METHOD, limit=16), word="none"),
        "methods that may run again when their process is lost, besides GET, HEAD and OPTIONS",
        "by the standard PUT and DELETE are idempotent; only the application knows whether they are in its code",
    )
    pages: str | None = setting(
        None,
        Optional(Directory(), word="none"),
        "directory of the bodies that a gateway answers faults with (503.html, 5xx.json, maintenance.html, …)",
        "no look fits all sites; HUP reads the files again",
    )
    calls: bool = setting(
        False,
        Boolean(),
        "let handlers be called with POST /-/call/SERVICE/HANDLER and JSON",
        "whoever reaches the gateway can then call every handler of the service",
    )
    affinity: str | None = setting(
        None,
        Optional(AFFINITY, word="none"),
        "what says whose a request is, so that those of one user go to the same process: a cookie, or a header",
        "a session waits for its process while others idle; only applications that keep state need that",
    )
    affinity_cookie: str = setting(
        "rota_session",
        COOKIE,
        "the name of the cookie of affinity",
        "two services on one host may share it: the value is only hashed",
    )
