"""`python -m rota.worker.process`: one process, from its specification on stdin to its exit.

It loads the application, runs the start hooks, says HELLO (that is: ready), and serves. TERM, or the stop word in its
page: it says BYE, finishes what it received, runs the stop hooks and exits with 0. Exit 70: the application failed to
load, or the master will not have it; the reason is on stderr.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until it is loaded: before the other imports

import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from ..common import collector, memory, wire
from ..common.errors import LoadError
from ..common.exits import LOAD_FAILED
from ..common.limits import PAGE_ROWS
from ..common.messages import Handler, ProcessHello
from ..common.sockets import fast_recv
from .backend import Backend, Rejected
from .core.deliveries import Deliveries, Delivery
from .core.holding import Holding
from .core.streams import Streams
from .hosting import Outcome, SyncHost
from .loading import load_application
from .orphans import end_with
from .page import GRACE, OBEY, PHASE, READY, STOP, STOPPING, Page
from .printing import lenient
from .streams import Pump, SyncStream

if TYPE_CHECKING:
    from .app import Worker

ASYNC_GRACE_S = 1.0  # between the cancellation of a task that is over its limit and the end of its process


class Specification(NamedTuple):
    """What the agent writes to stdin, as JSON."""

    app: str
    factory: bool
    service: str  # "" = the application's own name
    version: str  # "" = what the code says
    incarnation: str
    ticket: str  # hexadecimal
    page_fd: int
    agent_pid: int
    backends: list[str]  # one a master; the page says which to obey
    handler_timeout_s: float  # of handlers that declare none; 0 = no limit
    concurrency: int = PAGE_ROWS  # of an application with async handlers; others serve one at a time
    interface: str = "auto"
    threads: int = 1  # of a WSGI application

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Specification:
        """The agent may be of another version: a new one is on disk before that is restarted, and `--python` may name
        an environment with another one. What only a newer one says is passed over. Raises LoadError.
        """
        for name in cls._fields:
            if name not in said and name not in cls._field_defaults:
                raise LoadError(
                    f"the agent of this process says no {name}: it is of another version of rota, restart it"
                )
        return cls(**{name: said[name] for name in cls._fields if name in said})


def main() -> int:
    collector.loaded()  # before the application, whose objects are its own
    try:
        specification = Specification.read(json.load(sys.stdin))
    except LoadError as error:  # where its page is may be what is missing
        print(error, file=sys.stderr)
        return LOAD_FAILED
    _settle(specification)
    memory.keep_freed()
    page = Page(specification.page_fd)
    try:
        worker, version = load_application(specification._asdict())
        process = Process(specification, worker, version, page)
        signal.signal(signal.SIGTERM, lambda *_: process.stop())
        process.run()
    except (LoadError, Rejected) as error:
        print(failed(page, error), file=sys.stderr)
        return LOAD_FAILED
    return 0


def failed(page: Page, error: LoadError | Rejected) -> str:
    """It does not start: why is in its page from now on. What there is to be read about it."""
    page.fail(str(error))
    return str(getattr(error, "traceback_text", "") or error)


def _settle(specification: Specification) -> None:
    """What the agent may rely on: it ends with its agent, dumps its stack on ABRT, leaves INT and HUP to the agent."""
    end_with(specification.agent_pid)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.set_inheritable(specification.page_fd, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for name in ("stdout", "stderr"):
        setattr(sys, name, lenient(getattr(sys, name)))


class Process:
    """Everything that one incarnation has."""

    def __init__(self, specification: Specification, worker: Worker, version: str, page: Page) -> None:
        self.specification = specification
        self.worker = worker
        self.version = version
        self.page = page
        self.check_agent: Callable[[], None] = self._end_with_agent  # at each idle tick
        self.is_async = worker.is_async or (worker.threads or 1) > 1  # an event loop has the socket
        self.concurrency = specification.concurrency if worker.is_async else worker.threads or 1
        handlers = self.worker.handlers.values()
        grace_ns = int(1e9 * ASYNC_GRACE_S) if self.worker.is_async else 0
        page.words[GRACE] = grace_ns
        self.deliveries = Deliveries(
            self.page,
            {each.name: int(1e9 * (each.timeout or specification.handler_timeout_s)) for each in handlers},
            int(1e9 * specification.handler_timeout_s),
            grace_ns,
        )
        self._interface = self.worker.interface()
        self.streams = Streams(self.deliveries)
        self.holding = Holding()
        self.backend = Backend(
            specification.backends, self.page, self.deliveries, self.streams, self.hello, batch=not self.is_async
        )

    def run(self) -> None:
        """From the start hooks to the stop hooks. Raises LoadError if a start hook fails, Rejected by the master."""
        try:
            if self.is_async:
                from .async_serving import serve

                serve(self)
            else:
                _serve(self)
        finally:
            self.backend.close()

    def ready(self) -> None:
        """The start hooks have returned."""
        self.page.words[PHASE] = READY

    def stopping(self) -> None:
        self.page.words[PHASE] = STOPPING
        self.backend.say_bye()

    def attend(self) -> None:
        """The idle tick."""
        self.check_agent()
        self.backend.attend()

    def hello(self) -> ProcessHello:
        specification, deliveries = self.specification, self.deliveries
        handlers = self._interface["handlers"]
        done, done_ms = deliveries.done(monotonic_ns())
        return ProcessHello(
            versions=list(wire.VERSIONS),
            incarnation=specification.incarnation,
            ticket=bytes.fromhex(specification.ticket),
            service=specification.service or self.worker.name,
            version=self.version,
            digest=self._interface["digest"],
            handlers={name: Handler(each["idempotent"], each["timeout_ms"]) for name, each in handlers.items()},
            concurrency=self.concurrency,
            pid=os.getpid(),
            received_upto=deliveries.received_upto,
            started_upto=deliveries.started_upto,
            reply_sequence=deliveries.sequence,
            held=deliveries.held(),
            hellos=deliveries.next_hello(),
            done=done,
            done_ms=done_ms,
        )

    def stop(self) -> None:
        """BYE, what was received, the stop hooks; from any thread or signal handler."""
        self.page.words[STOP] = 1

    def _end_with_agent(self) -> None:
        if os.getppid() != self.specification.agent_pid:
            os._exit(1)


def _serve(process: Process) -> None:
    """Sync handlers, one after the other, in this thread."""
    words, backend = process.page.words, process.backend
    host = SyncHost(process.worker, version=process.version, stream_of=_opener(process))
    run = _streaming(process, host.run) if _may_stream(process.worker) else host.run
    host.start_up()
    process.ready()
    while not words[STOP]:
        process.attend()
        host.body_max = backend.body_max
        if backend.greeted:
            _serve_session(process, run)
        elif frame := backend.wait():
            backend.handle(frame)
    process.stopping()
    if backend.greeted:
        _serve_session(process, run, to_the_end=True)
    host.shut_down()


def _may_stream(worker: Worker) -> bool:
    return any(handler.binding.context is not None for handler in worker.handlers.values())


def _opener(process: Process) -> Callable[[Delivery], SyncStream | None]:
    pump, backend, streams = Pump(process), process.backend, process.streams
    return lambda delivery: SyncStream(pump, backend, streams, delivery) if delivery.streams else None


def _streaming(process: Process, run: Callable[[Any], Outcome]) -> Callable[[Delivery], Outcome]:
    """`run`, after which the delivery's stream, if there was one, is closed."""
    streams = process.streams

    def run_and_close(delivery: Delivery) -> Outcome:
        outcome = run(delivery)
        if not streams.opened:
            return outcome
        return outcome._replace(elapsed_us=streams.settled(delivery.number, outcome.elapsed_us))

    return run_and_close


def _serve_session(process: Process, run: Callable[[Any], Any], to_the_end: bool = False) -> None:
    """The hot path: between a frame and its handler stand the checks, and nothing else.

    Returns after an idle tick, when the page wants something, and for every frame that is no delivery. `to_the_end`:
    only when nothing is left to receive.
    """
    backend, deliveries, words = process.backend, process.deliveries, process.page.words
    link, token, obeyed = backend.link, deliveries.token, backend.obeyed
    assert link is not None
    dealer, inbox = link.dealer, backend.inbox
    recv, parse, now_ns = fast_recv, wire.parse, monotonic_ns
    take, start, reply, waits = deliveries.take, deliveries.start, deliveries.reply, process.holding.waits
    reply_max = process.page.reply_max
    DELIVER, BUNDLE = wire.DELIVER, wire.BUNDLE
    while True:
        if inbox:
            frame = inbox.popleft()
        else:
            if backend.replies:
                backend.send_replies()
                if backend.link is not link:
                    return
            try:
                frame = recv(dealer)
            except zmq.Again:
                return
        try:
            fields = parse(frame)
            if fields[3] != DELIVER or fields[5] != token:
                if fields[3] == BUNDLE:
                    inbox.extend(wire.split(frame, fields))
                    continue
                backend.handle(frame)
                if not to_the_end or not backend.greeted:
                    return
                continue
        except wire.BadFrame:
            backend.damage()
            return
        came_ns = now_ns()
        delivery = take(fields, frame, came_ns)
        if delivery is None:
            continue
        if start(delivery, came_ns):
            code, body, elapsed_us = run(delivery)
            answer = reply(delivery, code, body, elapsed_us)
            backend.replies.append(answer)
            # (A handler that waited for its stream may have opened another connection.)
            may_wait = len(answer) <= reply_max and backend.link is link if inbox else False
            if waits(elapsed_us, may_wait):
                continue
        else:
            backend.replies.append(deliveries.not_started(delivery))
        backend.send_replies()
        if backend.link is not link:
            return
        if (words[STOP] or words[OBEY] != obeyed) and not to_the_end:
            return


if __name__ == "__main__":
    sys.exit(main())
