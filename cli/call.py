"""rota call: one request from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as NotYet
from math import isfinite
from typing import Any

import click

from ..common import exits
from .operator import json_option, master_option, print_json, seconds_option, tell
from .verb import Failed, Mistake, verb

HINT_AFTER_S = 2.0  # of silence: then whoever looks at the terminal wants to know what is waited for

target_argument = click.argument("target", metavar="SERVICE.HANDLER")
values_argument = click.argument("values", nargs=-1, metavar="[K=V]...")


@verb(
    "call",
    examples=(
        "rota call orders.quote symbol=X quantity=1",
        "rota call orders.book basket:='[1, 2]' note='two of them' --timeout 5s",
        "rota call orders.charge amount=3 --idempotency-key basket-17",
    ),
    exits=(exits.FAILED, exits.NOT_FOUND, exits.UNREACHABLE, exits.UNDER_WAY, exits.INTERRUPTED),
)
@target_argument
@values_argument
@seconds_option(
    "--timeout", default="30s", least="1ms", most="1d", help="How long to wait for the answer; then exit with 75."
)
@click.option("--idempotency-key", metavar="KEY", help="Calls with the same key are one call.")
@click.option("--session", metavar="KEY", help="Calls of one session go to the same process while it is there.")
@master_option
@json_option
def call(
    masters: Sequence[str],
    target: str,
    values: Sequence[str],
    timeout: float,
    idempotency_key: str | None,
    session: str | None,
    as_json: bool,
) -> None:
    """Call a handler and print its result as JSON.

    In K=V the value is JSON if it can be read as JSON, and text otherwise; K:=V insists on JSON. So id=7 is a number,
    and id:='"7"' a text of one digit.
    """
    from ..client.client import Client

    arguments = read_values(values)
    if "" in (idempotency_key, session):  # of a script whose variable is not set: it would be no key at all
        raise Mistake("a KEY is empty")
    began = time.monotonic()
    with Client(*masters) as client:
        try:
            view = client.options(timeout=timeout, idempotency_key=idempotency_key, session=session)
            future = view.submit(target, **arguments)
        except (ValueError, TypeError) as error:
            raise Mistake(str(error)) from None
        try:
            result = future.result(HINT_AFTER_S if timeout > HINT_AFTER_S else None)
        except NotYet:
            if future.done():
                raise
            tell(f"no answer yet; waiting for {timeout - HINT_AFTER_S:g} s more")
            result = future.result()
    elapsed_ms = round(1000 * (time.monotonic() - began), 3)
    try:
        result = plain(result)
        if as_json:
            print_json({"result": result, "elapsed_ms": elapsed_ms})
        else:
            click.echo(json.dumps(result, ensure_ascii=False))
    except RecursionError:
        raise Failed("the call was made, but its result is nested too deeply to be printed") from None


def read_values(texts: Sequence[str]) -> dict[str, Any]:
    """`k=v` and `k:=v` as arguments; a Mistake for what is neither."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        strict = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise Mistake(f"arguments have names: k=v or k:=JSON expected, not {text!r}")
        if name in found:
            raise Mistake(f"the argument {name!r} is given twice")
        found[name] = _read(name, value, strict)
    return found


def _read(name: str, value: str, strict: bool) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        if strict:
            raise Mistake(f"{name}: {value!r:.200} is not JSON: {error}") from None
        return value


def plain(value: Any) -> Any:
    """A result as JSON can say it: what JSON has no word for becomes text, bytes base64."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, bytes):
        from base64 import b64encode

        return b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
