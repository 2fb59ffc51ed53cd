"""A steady load on the loan service: so many quotes a second, whether or not the earlier ones are answered.

    python examples/load.py --rate 400 --seconds 10

One line a second on stdout, until the time is over or until INT or TERM. --report writes one line a request: when it
was due (monotonic seconds), how long the answer took from then, "ok" or what went wrong, and the version that answered.
A request that has neither answer nor error when all time-outs are over is "lost".
"""

from __future__ import annotations

import argparse
import csv
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from decimal import Decimal
from pathlib import Path
from typing import Any

import rota

MONTHS = 36
TIMEOUT_S = 10.0
GRACE_S = 2.0  # for the last error to come in, after the last time-out

FIELDS = ("due", "latency", "outcome", "version")
OK, LOST, WRONG = "ok", "lost", "wrong answer"


class Request:
    """One quote that was asked for, and what became of it."""

    __slots__ = ("amount", "due", "latency", "outcome", "version")

    def __init__(self, number: int, due: float) -> None:
        self.amount = Decimal(1000 + number % 50_000)
        self.due = due
        self.latency = 0.0
        self.outcome = LOST
        self.version = ""

    def finish(self, future: Future[Any]) -> None:
        """Counted from when it was due: a sender that is held up must not make the answers look fast."""
        self.latency = time.monotonic() - self.due
        error = future.exception()
        if error is not None:
            self.outcome = getattr(error, "outcome", type(error).__name__)
        else:
            self.answered(future.result())

    def answered(self, answer: Any) -> None:
        self.outcome = OK if Decimal(answer["amount"]) == self.amount else WRONG
        self.version = str(answer["version"])


class Load:
    """`ask` sends the request for a quote on its way."""

    def __init__(self, ask: Callable[[Request], Future[Any]], rate: float) -> None:
        self.ask = ask
        self.rate = rate
        self.requests: list[Request] = []
        self.futures: set[Future[Any]] = set()
        self.stopping = False

    def run(self, seconds: float) -> None:
        begun = time.monotonic()
        reported = 0
        while not self.stopping and (due := begun + len(self.requests) / self.rate) < begun + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            self.send(due)
            if due - begun >= reported + 1:
                reported += 1
                self.report()
        wait(self.futures.copy(), timeout=TIMEOUT_S + GRACE_S)
        self.report()

    def send(self, due: float) -> None:
        self.take(Request(len(self.requests), due))

    def take(self, request: Request) -> None:
        self.requests.append(request)
        future = self.ask(request)
        self.futures.add(future)
        future.add_done_callback(request.finish)
        future.add_done_callback(self.futures.discard)

    def report(self) -> None:
        latest = self.requests[-int(self.rate) :]
        times = sorted(request.latency for request in latest if request.outcome == OK)
        p99 = f"{1000 * times[len(times) * 99 // 100]:.1f} ms" if times else "-"
        outcomes = Counter(request.outcome for request in list(self.requests))
        sent, answered, waiting = len(self.requests), outcomes[OK], outcomes[LOST]  # "lost" only when all is over
        failed = sent - answered - waiting
        print(f"sent {sent:6}  answered {answered:6}  waiting {waiting:3}  failed {failed}  p99 {p99}", flush=True)

    def write(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(FIELDS)
            rows.writerows([f"{x.due:.6f}", f"{x.latency:.6f}", x.outcome, x.version] for x in self.requests)


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=400, help="requests a second (400)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long; without it until INT or TERM")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write one line a request into this CSV file")
    return parser


def play(load: Load, options: argparse.Namespace) -> int:
    """The load from its beginning to its end; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(load, "stopping", True))
    load.run(options.seconds)
    if options.report:
        load.write(options.report)
    return 0 if all(request.outcome == OK for request in load.requests) else 1


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--master", help="control address; without it ROTA_MASTER, else tcp://127.0.0.1:7700")
    options = parser.parse_args()
    with rota.Client(*filter(None, [options.master])) as client:
        patient = client.options(timeout=TIMEOUT_S)

        def ask(request: Request) -> Future[Any]:
            return patient.submit("loans.quote", amount=request.amount, months=MONTHS)

        return play(Load(ask, options.rate), options)


if __name__ == "__main__":
    sys.exit(main())
