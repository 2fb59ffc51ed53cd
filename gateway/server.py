"""A gateway process: HTTP requests in, calls of a client out, on one event loop.

TERM   not ready at once; after `lead` nobody can connect; what is being served is answered, then it ends
HUP    the pages of services are read again, and the certificate
INT, QUIT, a second TERM   ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from importlib.util import find_spec
from itertools import count
from operator import methodcaller
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..client.aio import AsyncClient
from ..common.errors import Error
from ..common.log import note, printable
from ..common.loops import new_event_loop
from ..common.settings import FORWARDED, HttpSettings, ServiceHttpSettings
from . import listening
from .access import AccessLog, Entry
from .asking import Asking
from .certificate import BadCertificate, Certificate
from .core.answers import Answer
from .core.effects import Refused
from .core.head import Heads
from .core.plain import packed_peer
from .core.requests import Peer, Proxies
from .core.response import is_bodiless
from .core.routes import Routes
from .core.rules import Limits
from .core.shared import Shared, Timeouts
from .core.upload import Spool
from .crew import Crew, unblock
from .pages import ServicePages
from .protocol import HttpProtocol
from .readiness import Readiness
from .request import Request
from .spool import Store
from .tls import Tls

if TYPE_CHECKING:
    from .http2 import Http2Protocol, Http2Stream

    Connection = HttpProtocol | Http2Protocol | Tls
    Asker = HttpProtocol | Http2Stream  # what a request has for its connection

SWEEP_S = 0.25  # how late a time-out may be noticed; a timer for each connection would cost more than its requests
JOIN_S = 0.5  # for the first request of whom nobody had accepted yet when the listener closed
OVERDUE_S = 1.0  # how often what has outlasted a drain is looked for
NOTES_PER_S = 10  # lines about faults on stderr; the others are counted
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Gateway:
    """What all connections of one process share."""

    def __init__(self, start: Start, pages: ServicePages, certificate: Certificate | None, first: bool) -> None:
        """`first`: of its crew; it tells what concerns all."""
        self.settings = settings = start.settings
        self.pages = pages
        self.certificate = certificate
        self._scheme = "https" if certificate else "http"
        self._faults = _Faults()
        self.tell = self._faults.tell  # on stderr
        self.store = Store(settings.spool_max, settings.spool_memory, settings.spool_dir, self.tell)
        self.date = _date_of(time.time)
        self._proxies = Proxies(settings.trusted_proxies or (), settings.forwarded == FORWARDED)
        self.client = AsyncClient(*settings.master).options(timeout=settings.timeout)
        tell = note if first else None
        self._readiness = Readiness(start.served(), settings.ready_after, tell, start.routes.services)
        self._access = AccessLog(settings.access_log)
        self.new_id = _ids().__next__
        self.shared = _shared(settings, self.date, self.store.open, self.new_id)
        self.take = Asking(self, start, self._proxies).take
        self._connections: dict[Connection, None] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._of_address: Counter[str] = Counter()
        self.draining = self._shut = False
        self._ended = asyncio.Event()

    # ---- connections ------------------------------------------------------------------------------------------------

    def peer(self, transport: asyncio.Transport | Tls) -> Peer:
        client, server = (_host_and_port(transport.get_extra_info(name)) for name in ("peername", "sockname"))
        packed = packed_peer(client, server, self._scheme)
        return Peer(client, server, self._proxies.trust(client[0]), self._scheme, packed)

    def _protocol(self) -> Connection:
        return HttpProtocol(self) if self.certificate is None else Tls(self, self.certificate.context)

    def admit(self, connection: Connection) -> bool:
        """False: there are too many, in all or from its address."""
        host, settings = connection.peer.client[0], self.settings
        if len(self._connections) >= settings.connections:
            return False
        if self._of_address[host] >= settings.connections_per_address and not connection.peer.trusted:
            return False
        self._connections[connection] = None
        self._of_address[host] += 1
        if self._shut:  # it had connected before nobody could: its request is on the way
            asyncio.get_running_loop().call_later(JOIN_S, connection.drain)
        return True

    def secured(self, handshake: Tls, protocol: str | None) -> HttpProtocol | Http2Protocol:
        """What speaks HTTP on it, and is to be admitted in its place."""
        self._release(handshake)
        if protocol != "h2":
            return HttpProtocol(self)
        from .http2 import Http2Protocol

        return Http2Protocol(self)

    def forget(self, connection: Connection) -> None:
        self._release(connection)
        self._end_if_alone()

    def _release(self, connection: Connection) -> None:
        if connection not in self._connections:  # it was refused
            return
        del self._connections[connection]
        host = connection.peer.client[0]
        self._of_address[host] -= 1
        if not self._of_address[host]:
            del self._of_address[host]

    # ---- requests ---------------------------------------------------------------------------------------------------

    def ready(self) -> Answer:
        reason = "draining" if self.draining else self._readiness.reason()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        return Answer(503 if reason else 200, headers, f"{reason or 'ready'}\n".encode())

    def finished(self, request: Request, status: int, size: int, broken: bool = False) -> None:
        """For the access log."""
        if self._access.wanted:
            head = request.head
            fields = dict(head.headers)
            self._access.add(
                Entry(
                    request.client or str(request.connection.peer.client[0]),
                    head.method,
                    head.target,
                    head.version,
                    status,
                    0 if is_bodiless(head.method, status) else size,
                    monotonic() - request.began,
                    request.id,
                    request.route.service if request.route else "",
                    fields.get(b"user-agent", b""),
                    fields.get(b"referer", b""),
                    broken,
                )
            )

    def refused(self, connection: Connection, refused: Refused) -> None:
        """For the access log: what never was a request."""
        if self._access.wanted:
            client, (status, size, its_id, head) = connection.peer.client[0], refused
            method, target, version, agent, referer = "-", b"-", "-", b"", b""
            if head is not None:
                method, target, version = head[:3]
                fields = dict(head.headers)
                agent, referer = fields.get(b"user-agent", b""), fields.get(b"referer", b"")
                if connection.peer.trusted:
                    client = self._proxies.origin(connection.peer, head).client[0]
            self._access.add(Entry(client, method, target, version, status, size, 0.0, its_id, "", agent, referer))

    def fault(self, request: Request, status: int, error: BaseException) -> None:
        why = error.details.get("cause", error) if isinstance(error, Error) else error  # not what callers are told
        self.tell(
            f"{status} {request.head.method} {request.head.target[:200].decode('latin-1')} "
            f"request {request.id}: {type(error).__name__}: {why}"
        )

    # ---- life -------------------------------------------------------------------------------------------------------

    async def serve(self, listener: socket.socket, tie: int) -> int:
        """Until it is told to stop, or `tie` can be read: nobody holds its other end any more."""
        loop = asyncio.get_running_loop()
        for number in _ENDS:
            loop.add_signal_handler(number, self._told, number, listener)
        loop.add_signal_handler(signal.SIGHUP, reread(self.pages, self.certificate))
        unblock()
        loop.add_reader(tie, self._untied, tie, listener)
        stop = threading.Event()
        watch = threading.Thread(
            target=self._readiness.watch, args=(self.settings.master, stop), name="readiness", daemon=True
        )
        watch.start()
        self._server = await loop.create_server(self._protocol, sock=listener.dup(), backlog=listening.BACKLOG)
        sweep = loop.create_task(self._sweep())
        try:
            await self._ended.wait()
        finally:
            sweep.cancel()
            stop.set()
            self._server.close()
            for sock in listening.shut(listener):  # a master that is gone is waited for: the address is to be free
                sock.close()
            await self.client.close()
            self._access.flush()
        return 0

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = monotonic()
            self._each(methodcaller("tick", now))
            self._access.flush()
            self._faults.flush()

    def _each(self, do: Callable[[Connection], None]) -> None:
        """Where that fails for one it is cut: the others have their time-outs, and the gateway its end."""
        for connection in list(self._connections):
            try:
                do(connection)
            except Exception:
                note(traceback.format_exc())
                connection.cut()

    def _told(self, number: int, listener: socket.socket) -> None:
        if self.draining or number != signal.SIGTERM:
            self._ended.set()
            return
        self.draining = True
        asyncio.get_running_loop().call_later(self.settings.lead, self._shut_down, listener)

    def _untied(self, tie: int, listener: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(tie)
        self.draining = True
        self._shut_down(listener)

    def _shut_down(self, listener: socket.socket) -> None:
        """Nobody can connect any more; whoever is connected gets the answer that he waits for."""
        if self._shut:
            return
        self._shut = True
        loop = asyncio.get_running_loop()
        waiting = listening.shut(listener)
        self._server.close()
        self._each(methodcaller("drain"))
        self._joining = {loop.create_task(self._join(sock)) for sock in waiting}
        for each in self._joining:
            each.add_done_callback(self._joined)
        loop.call_later(self.settings.drain, self._end_overdue)
        self._end_if_alone()

    def _joined(self, task: asyncio.Task[None]) -> None:
        self._joining.discard(task)
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        """Who had connected and is not a connection yet counts: the last one that idles may leave before he is."""
        if self._shut and not self._connections and not self._joining:
            self._ended.set()

    def _end_overdue(self) -> None:
        """What goes on may do so for ever: an answer, a request that does not come, an answer that nobody reads."""
        self._each(_end_by_now)
        asyncio.get_running_loop().call_later(OVERDUE_S, self._end_overdue)

    async def _join(self, sock: socket.socket) -> None:
        """Somebody who had connected before nobody could."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, sock)


def _end_by_now(connection: Connection) -> None:
    requests = tuple(connection.requests)
    for request in requests:
        request.end_by_now()
    if not requests:
        connection.leave()


def _shared(
    settings: HttpSettings, date: Callable[[], bytes], open_spool: Callable[[], Spool], new_id: Callable[[], str]
) -> Shared:
    limits = Limits(settings.max_line, settings.max_head, settings.max_headers, settings.max_body)
    timeouts = Timeouts(
        idle=settings.idle_timeout,
        head=settings.head_timeout,
        body=settings.body_timeout,
        body_rate=settings.body_rate,
        write=settings.write_timeout,
        write_rate=settings.write_rate,
    )
    return Shared(limits, timeouts, date, open_spool, new_id, Heads(limits), settings.streams)


def _host_and_port(name: Any) -> list[Any]:
    return list(name[:2]) if name else ["", 0]  # none: it is gone already


class _Faults:
    """Lines on stderr, not more than anybody can read."""

    def __init__(self) -> None:
        self._left = NOTES_PER_S
        self._more = 0
        self._full_at = 0.0

    def tell(self, text: str) -> None:
        if self._left:
            self._left -= 1
            note(f"rota gateway: {printable(text)}")
        else:
            self._more += 1

    def flush(self) -> None:
        now = monotonic()
        if now >= self._full_at:
            self._full_at, self._left = now + 1.0, NOTES_PER_S
            if self._more:
                note(f"rota gateway: {self._more} more faults in this second")
                self._more = 0


def _ids() -> Iterator[str]:
    """Unique in all gateways, and short (core/plain.py): 12 random digits of this process, then a number."""
    own = token_hex(6)
    return (f"{own}-{number:x}" for number in count(1))


def _date_of(clock: Callable[[], float]) -> Callable[[], bytes]:
    """What a Date header says now, formatted once a second."""
    second, text = 0, b""

    def date() -> bytes:
        nonlocal second, text
        now = int(clock())
        if now != second:
            second, text = now, formatdate(now, usegmt=True).encode()
        return text

    return date


class Start(NamedTuple):
    """What a gateway is started with. `services`: how each is reached, by name."""

    settings: HttpSettings
    routes: Routes
    services: Mapping[str, ServiceHttpSettings] = {}

    def served(self) -> list[str]:
        called = (name for name, each in self.services.items() if each.calls)
        return sorted({*self.routes.services, *called})


def certificate_of(settings: HttpSettings) -> Certificate | None:
    """None: plain HTTP is spoken. Raises BadCertificate."""
    if settings.tls_certificate is not None:
        return Certificate(settings.tls_certificate, settings.tls_key, _protocols(settings))
    if settings.tls_key is not None:
        raise BadCertificate("http.tls_key is set, but not http.tls_certificate (--tls-cert): whose key is it?")
    return None


def _protocols(settings: HttpSettings) -> list[str]:
    """Of ALPN, the best one first."""
    if not settings.http2 or find_spec("h2") is None:
        return ["http/1.1"]
    from . import http2  # before processes are forked: they share it  # noqa: F401

    return ["h2", "http/1.1"]


def reread(pages: ServicePages, certificate: Certificate | None) -> Callable[[], bool]:
    """What HUP does. False: none of it was any good."""

    def read_again() -> bool:
        good = pages.read_again()
        return certificate.read_again() or good if certificate is not None else good

    return read_again


def main(start: Start) -> int:
    """Serves until it is told to stop. Raises PortInUse, BadPage, BadCertificate with a sentence for the user."""
    pages = ServicePages({name: each.pages for name, each in start.services.items() if each.pages})
    certificate = certificate_of(start.settings)
    listeners = listening.bound(start.settings.bind or listening.DEFAULT, start.settings.workers)
    url = listening.url(listeners[0], "https" if certificate else "http")
    note(f"rota gateway: {url} for {', '.join(start.served())}")
    if problem := listening.room_for(start.settings.connections):
        note(f"rota gateway: {problem}")
    if hint := _hint(start.settings):
        note(f"rota gateway: {hint}")

    def serve(listener: socket.socket, tie: int) -> int:
        gateway = functools.partial(Gateway, start, pages, certificate, listener is listeners[0])
        return _process(gateway, listener, tie)

    return Crew(listeners, serve, reread(pages, certificate)).run()


def _hint(settings: HttpSettings) -> str:
    """What an extra that is not installed would give; "" if nothing."""
    costs = {"uvloop": "serves fewer requests a second"}
    if settings.tls_certificate is not None and settings.http2:
        costs["h2"] = "speaks no HTTP/2"
    missing = [name for name in costs if find_spec(name) is None]
    what = " and ".join(costs[name] for name in missing)
    return f"without {' and '.join(missing)} it {what}: pip install 'rota[http]'" if missing else ""


def _process(gateway: Callable[[], Gateway], listener: socket.socket, tie: int) -> int:
    from ..common import collector, memory

    collector.loaded()
    memory.keep_freed()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(gateway().serve(listener, tie))
