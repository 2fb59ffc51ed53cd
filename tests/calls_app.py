"""Handlers for who calls them over HTTP, and a bare `http` beside them."""

from __future__ import annotations

import datetime
import time
from typing import Any

import rota

orders = rota.Worker("orders")


@orders.handler
def quote(symbol: str, quantity: int = 1) -> dict[str, Any]:
    return {"symbol": symbol, "price": 9.5 * quantity}


@orders.handler
def echo(value: Any) -> Any:
    return value


@orders.handler
def now() -> int:
    return time.monotonic_ns()


@orders.handler
def slow(seconds: float) -> None:
    time.sleep(seconds)


@orders.handler
def fail() -> None:
    raise ValueError("no such symbol")


@orders.handler
def today() -> dict[str, datetime.date]:
    return {"day": datetime.date(2026, 11, 22)}


@orders.handler
def headers(ctx: rota.Context) -> dict[str, str]:
    return dict(ctx.headers)


def about(method: str, target: bytes, headers: list[Any], body: bytes, about: dict[str, Any]) -> list[Any]:
    return [200, [], repr({**about, "headers": dict(headers)}).encode()]


orders.handler(name="http")(about)
orders.handler(name="http-safe", idempotent=True)(about)
