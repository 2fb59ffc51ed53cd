"""The loan service as a web application, version 2: `rota run app:application --http 127.0.0.1:8080` in this folder.

GET /quote?amount=1000&months=36 answers with JSON. Nothing of rota is in it: any WSGI server serves it.
"""

import json
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

VERSION = 2
BUREAU_S = 0.005  # how long the credit bureau, which is not part of this example, takes to answer
MONTHLY_RATE = Decimal("4.9") / 1200
CENT = Decimal("0.01")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    asked = parse_qs(environ["QUERY_STRING"])
    try:
        found = quote(Decimal(asked["amount"][0]), int(asked["months"][0]))
    except (LookupError, ArithmeticError, ValueError):
        return _answer(start_response, "400 Bad Request", {"error": "amount and months, from 1 to 480, are needed"})
    return _answer(start_response, "200 OK", found)


def quote(amount: Decimal, months: int) -> dict[str, object]:
    """What a loan costs a month and altogether."""
    if not 1 <= months <= 480:
        raise ValueError(f"months must be from 1 to 480, not {months}")
    time.sleep(BUREAU_S)
    monthly = (amount * MONTHLY_RATE / (1 - (1 + MONTHLY_RATE) ** -months)).quantize(CENT)
    return {"version": VERSION, "amount": str(amount), "monthly": str(monthly), "total": str(monthly * months)}


def _answer(start_response: Callable[..., Any], status: str, found: dict[str, object]) -> Iterable[bytes]:
    body = json.dumps(found).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
