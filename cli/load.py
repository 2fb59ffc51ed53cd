"""rota load: many requests from the command line, and how they fared."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import inf
from threading import Condition
from typing import TYPE_CHECKING, Any

import click

from ..common import exits
from .call import read_values, target_argument, values_argument
from .operator import Number, Whole, json_option, master_option, patient_admin, seconds_option, show, tell
from .tally import Tally
from .verb import Mistake, verb

if TYPE_CHECKING:
    from concurrent.futures import Future

PROGRESS_S = 1.0
MOST_WAITING = 10_000  # at a fixed rate: beyond it the service is drowned, and more would only fill memory


@verb(
    "load",
    examples=(
        "rota load orders.quote symbol=X                    16 at a time, for 10 s",
        "rota load orders.quote symbol=X --rate 500 --duration 1m",
        "rota load orders.quote symbol=X --requests 100000 --concurrency 64 --json",
    ),
    exits=(exits.FAILED, exits.UNREACHABLE, exits.INTERRUPTED),
)
@target_argument
@values_argument
@click.option("--rate", type=Number(0.001, 1e6), metavar="N", help="Requests a second, however slow the answers are.")
@click.option("--concurrency", type=Whole(1, 10_000), metavar="N", help="Requests in flight at any time. Default: 16.")
@seconds_option("--duration", least="1ms", help="How long to send. Default: 10s, or until --requests are sent.")
@click.option("--requests", type=Whole(1, 10**12), metavar="N", help="How many to send.")
@seconds_option("--timeout", default="30s", least="1ms", most="1d", help="How long one request may take.")
@master_option
@json_option
def load(
    masters: Sequence[str],
    target: str,
    values: Sequence[str],
    rate: float | None,
    concurrency: int | None,
    duration: float | None,
    requests: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Put load on a handler.

    Progress is on stderr; the summary comes at the end or at Ctrl-C, with the last answers. A second Ctrl-C does not
    wait for them: exit 130. Exit 1 if a request failed. If the first ones reach no master within --timeout, no more are
    sent: exit 69.

    With --rate, latency counts from the time at which a request was due to be sent, so that a stall shows in all
    requests that it delays. The longest stall is time without an answer; a failure is none.
    """
    if rate and concurrency:
        raise Mistake("--rate sends however many are in flight, --concurrency waits for answers: use one of them")
    from ..client.client import Client

    arguments = read_values(values)
    until = inf if requests and duration is None else 10.0 if duration is None else duration
    patient_admin(masters, timeout).close()  # where no master answers it says so soon
    with Client(*masters) as client:
        view = client.options(timeout=timeout)
        try:
            load = Load(lambda: view.submit(target, **arguments), concurrency or (MOST_WAITING if rate else 16))
            report = load.run(due_times(rate, requests), until)
            reached_nobody = load.reached_nobody  # as it is before the client closes, and ends what is in flight
        except (ValueError, TypeError) as error:
            raise Mistake(str(error)) from None
    show(report, as_json, lambda: summary(report))
    if report["failed"]:
        sys.exit(exits.UNREACHABLE if reached_nobody else exits.FAILED)
    if report["unanswered"]:
        sys.exit(exits.INTERRUPTED)


def due_times(rate: float | None, requests: int | None) -> Iterator[float]:
    """When each request is to be sent, in seconds from the start; 0: as soon as there is room."""
    numbers = range(requests) if requests else count()
    return (number / rate if rate else 0.0 for number in numbers)


class Load:
    """Sends from the calling thread; answers are counted in the client's."""

    def __init__(self, submit: Callable[[], Future[Any]], window: int) -> None:
        self._submit = submit
        self._window = window
        self._tally = Tally()
        self._changed = Condition()
        self._began = self._told_at = 0.0

    @property
    def reached_nobody(self) -> bool:
        return self._tally.reached_nobody

    def run(self, due: Iterator[float], until: float) -> dict[str, Any]:
        """The report. Ctrl-C ends the sending; a second one the waiting."""
        self._began = self._told_at = time.monotonic()
        try:
            try:
                self._send(due, until)
            except KeyboardInterrupt:
                tell("stopping; waiting for the last answers (Ctrl-C again to end at once)")
            self._room(1)
        except KeyboardInterrupt:
            pass
        with self._changed:
            return self._tally.report(self._began, time.monotonic())

    def _send(self, due: Iterator[float], until: float) -> None:
        for offset in due:
            self._room(self._window)
            if self.reached_nobody:
                return
            at = self._began + offset
            while (now := time.monotonic()) < at and now < self._began + until:
                time.sleep(min(at - now, PROGRESS_S))
                self._progress()
                if self.reached_nobody:
                    return
            if now >= self._began + until:
                return
            self._send_one(at if offset else now, now)
            self._progress()

    def _send_one(self, asked_at: float, now: float) -> None:
        """Ctrl-C falls before it or behind it: what was counted is sent, and its answer waited for."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self._changed:
                self._tally.asked(now)
            self._submit().add_done_callback(lambda future: self._told(future, asked_at))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _room(self, window: int) -> None:
        """Wait until fewer than so many are in flight, or it is known that none of them reaches a master."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._tally.outstanding < window or self.reached_nobody, PROGRESS_S):
                    return
            self._progress()

    def _told(self, future: Future[Any], asked_at: float) -> None:
        now = time.monotonic()
        error = future.exception()
        with self._changed:
            self._tally.told(now, asked_at, error)
            self._changed.notify()

    def _progress(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S:
            self._told_at = now
            with self._changed:
                line = progress(self._tally, now - self._began)
            tell(line)


def progress(tally: Tally, elapsed_s: float) -> str:
    p50, p99 = tally.percentiles_ms((50, 99))
    return (
        f"{elapsed_s:4.0f} s  {tally.answered:,} answered  {tally.failed:,} failed  "
        f"{tally.outstanding:,} in flight  p50 {p50:.3g} ms  p99 {p99:.3g} ms"
    )


def summary(report: dict[str, Any]) -> list[str]:
    from .render import millis, printable

    return [
        f"sent           {report['sent']:,} in {report['elapsed_s']:.1f} s",
        f"answered       {report['answered']:,} ({report['rate']:,.0f}/s)",
        f"failed         {report['failed']:,}",
        *(
            f"  {kind}: {n:,}, the first: {printable(report['first_causes'][kind])}"
            for kind, n in report["failures"].items()
        ),
        *([f"unanswered     {report['unanswered']:,}, not waited for"] if report["unanswered"] else []),
        *_latency(report),
        f"longest stall  {millis(report['longest_stall_ms'])}",
    ]


def _latency(report: dict[str, Any]) -> Iterator[str]:
    """Of what was answered."""
    from .render import millis

    if report["answered"]:
        figures = (f"{name} {millis(report[f'{name}_ms'])}" for name in ("p50", "p95", "p99", "max"))
        yield f"latency        {'  '.join(figures)}"
