"""rota quarantine list | show | retry | drop: requests that processes died of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from ..common import exits
from .operator import (
    LOOK_S,
    Reply,
    json_option,
    looking,
    master_option,
    paint,
    patient_admin,
    print_json,
    reason_option,
    show,
    width,
)
from .verb import VerbGroup, verb

PREVIEW_MAX = 2000  # characters of the arguments
START_MAX = 48  # bytes of a payload that cannot be decoded

_LOOK_CODES = (exits.UNREACHABLE,)
_CODES = (exits.NOT_FOUND, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY)


@click.group("quarantine", cls=VerbGroup)
def quarantine_group() -> None:
    """Show and release requests that processes died of.

    A request is a suspect when a process that was alone with it crashed: requests with its payload then run alone. When
    two processes have died of a payload within ten minutes it is in quarantine: requests with it are refused for the
    time of quarantine_for, or until `retry` or `drop`.
    """


@verb("list", examples=("rota quarantine list", "rota quarantine list --json | jq '.entries[].id'"), exits=_LOOK_CODES)
@master_option
@json_option
def list_(masters: Sequence[str], as_json: bool) -> None:
    """List suspects and what is in quarantine."""
    with looking(masters) as master:
        reply = master.quarantine(timeout=LOOK_S)
    show(reply, as_json, lambda: _table(reply["entries"]) if reply["entries"] else ["nothing is in quarantine"])


@verb(
    "show",
    examples=("rota quarantine show 3f9a10c2", "rota quarantine show 3f9a --json | jq .arguments"),
    exits=(exits.NOT_FOUND, exits.UNREACHABLE),
)
@click.argument("id", metavar="ID")
@master_option
@json_option
def show_(masters: Sequence[str], id: str, as_json: bool) -> None:
    """Show what two processes died of: causes, last words, arguments.

    ID may be shortened while it is unique. With --json the payload is base64.
    """
    from .call import plain

    with looking(masters) as master:
        reply = master.quarantine("show", id, timeout=LOOK_S)
    if as_json:
        print_json(plain({**reply, "arguments": _arguments(reply)}))
    else:
        click.echo("\n".join(_entry(reply)))


@verb("retry", examples=("rota quarantine retry 3f9a10c2 --reason 'fixed in 2.4'",), exits=_CODES)
@click.argument("id", metavar="ID")
@reason_option
@master_option
@json_option
def retry(masters: Sequence[str], id: str, reason: str, as_json: bool) -> None:
    """Let requests with this payload run again, alone at first.

    Nothing is sent by this: the next such request of a caller is tried. If it is answered the others follow; if one
    more process dies of it, it is in quarantine again.
    """
    _change("retry", masters, id, reason, as_json, "may run again, alone at first", "may run already")


@verb("drop", examples=("rota quarantine drop 3f9a10c2",), exits=_CODES)
@click.argument("id", metavar="ID")
@reason_option
@master_option
@json_option
def drop(masters: Sequence[str], id: str, reason: str, as_json: bool) -> None:
    """Forget an entry: its requests run like any others again."""
    _change("drop", masters, id, reason, as_json, "forgotten", "forgotten before")


for _command in (list_, show_, retry, drop):
    quarantine_group.add_command(_command)


def _change(action: str, masters: Sequence[str], id: str, reason: str, as_json: bool, done: str, already: str) -> None:
    with patient_admin(masters) as master:
        reply = master.quarantine(action, id, reason=reason)
    show(reply, as_json, lambda: [f"{reply['id']}: {done if reply['changed'] else already}"])


# ---- as text --------------------------------------------------------------------------------------------------------


def _table(entries: Sequence[Reply]) -> list[str]:
    from .render import Cell, duration, number, printable, table

    header = [Cell("ID"), Cell("HANDLER"), Cell("STATE"), *map(number, ("DEATHS", "LAST", "REFUSED")), Cell("CAUSE")]
    rows = [
        [
            Cell(each["id"]),
            Cell(printable(_handler(each)), "bold"),
            Cell(each["state"], "red" if each["state"] == "quarantined" else "yellow"),
            number(each["deaths"]),
            number(duration(each["died_s"])),
            number(each["refused"]),
            Cell(printable(each["cause"])),
        ]
        for each in entries
    ]
    return table(header, rows, paint(), width())


def _handler(entry: Reply) -> str:
    return f"{entry['service']}.{entry['handler']}"


def _entry(entry: Reply) -> list[str]:
    from .render import duration, plural, printable

    left = f", for {duration(entry['left_s'])} more" if entry["left_s"] is not None else ""
    lines = [
        f"{entry['id']}  {printable(_handler(entry))}  {entry['state']} since {duration(entry['since_s'])}{left}",
        f"{plural(entry['deaths'], 'process')} died, {plural(entry['refused'], 'request')} refused since",
        "",
        f"payload: {plural(entry['size'], 'byte')}",
        *_preview(entry),
    ]
    for death in entry["last_deaths"]:
        lines += ["", *_death(death)]
    return lines


def _death(death: Reply) -> Iterator[str]:
    from .render import duration, printable, tail

    ago = duration(death["died_s"])
    yield f"{ago} ago: {printable(death['incarnation'])} on {printable(death['node'])} {printable(death['cause'])}"
    yield f"  request {death['request']} of session {printable(death['session'])}; its last words:"
    yield from tail(death["text"]) if death["text"].strip() else ["    (nothing on stderr)"]


def _preview(entry: Reply) -> list[str]:
    """The call as Python would write it, or how the bytes begin."""
    from .render import printable

    arguments = _arguments(entry)
    if arguments is None:
        kept = len(entry["payload"])
        why = f"the first {kept:,} are kept" if kept < entry["size"] else "no arguments that could be decoded"
        return [f"    {entry['payload'][:START_MAX].hex(' ')} … ({why})"]
    said = [*map(repr, arguments["args"]), *(f"{name}={value!r}" for name, value in arguments["kwargs"].items())]
    text = printable(f"{_handler(entry)}({', '.join(said)})")
    return [f"    {text if len(text) <= PREVIEW_MAX else text[:PREVIEW_MAX] + ' …'}"]


def _arguments(entry: Reply) -> dict[str, Any] | None:
    """Decoded here: a master never looks into a payload."""
    from ..common.body import decode_call
    from ..common.errors import ProtocolError
    from .call import plain

    try:
        args, kwargs = decode_call(entry["payload"])
        plain([args, kwargs])  # goes deeper than whatever shows it
    except (ProtocolError, RecursionError):
        return None
    return {"args": args, "kwargs": kwargs}
