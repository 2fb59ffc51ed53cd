"""Requests as a gateway sends them, to an application that is hosted as in a process."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

import rota
from rota.common.body import decode_error, decode_result, encode_call
from rota.common.errors import OK
from rota.worker.async_hosting import AsyncHost
from rota.worker.hosting import Outcome

ABOUT = {
    "scheme": "https",
    "version": "1.1",
    "client": ["192.0.2.7", 40123],
    "server": ["shop.example", 8443],
    "root": "",
    "id": "4f-7",
}


PATIENCE_S = 20.0  # of a test that waits for what must happen


def starts(delivery: Any) -> bool:
    """Nothing was taken back."""
    return True


class Driven(AsyncHost):
    """One that is driven from another thread than that of its loop."""

    def take(self, delivery: Any) -> None:
        self._there(super().take, delivery)

    def cancel(self, number: int) -> None:
        self._there(super().cancel, number)

    def stop(self) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(super().stop)

    def _there(self, function: Callable[..., None], *args: Any) -> None:
        if asyncio._get_running_loop() is self._loop:  # by itself
            return function(*args)
        done: Future[None] = Future()

        def call() -> None:
            try:
                done.set_result(function(*args))
            except Exception as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        done.result(PATIENCE_S)


class Answer(NamedTuple):
    status: int
    headers: list[list[bytes]]
    body: bytes


class Delivery(NamedTuple):
    number: int
    handler: str
    body: bytes
    request_id: str = "7f-3"
    deadline: float | None = None
    attempt: int = 1
    idempotency_key: str | None = None
    session: str | None = None
    headers: Mapping[str, str] = {}


def arguments(
    method: str = "GET",
    target: bytes = b"/",
    headers: list[list[bytes]] | None = None,
    body: bytes = b"",
    **about: Any,
) -> tuple[Any, ...]:
    """The five arguments of docs/HTTP.md; `about` changes what is said of the request."""
    given = [[b"host", b"shop.example"]] if headers is None else headers
    return (method, target, given, body, {**ABOUT, **about})


def request(*given: Any, number: int = 1, handler: str = "http", **named: Any) -> Delivery:
    return Delivery(number, handler, b"" + encode_call(arguments(*given, **named), {}))


def answer_of(outcome: Outcome) -> Answer:
    assert outcome.code == OK, decode_error(outcome.code, outcome.body)
    return Answer(*decode_result(b"" + outcome.body))


def failure_of(outcome: Outcome) -> rota.RemoteError:
    assert outcome.code != OK, decode_result(outcome.body)
    error = decode_error(outcome.code, outcome.body)
    assert isinstance(error, rota.RemoteError)
    return error
