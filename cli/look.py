"""rota status | wait | events: what is, what is to become, what was."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ..common import exits
from .operator import (
    LOOK_S,
    Reply,
    Whole,
    given,
    json_option,
    looking,
    master_option,
    on_a_screen,
    paint,
    patient_admin,
    print_json,
    seconds_option,
    show,
    tell,
    while_read,
    width,
)
from .operator import wait as until
from .verb import Mistake, verb

if TYPE_CHECKING:
    from ..client.admin import Admin

CONDITIONS = ("active", "detached", "ready", "reloaded", "paused", "maintenance", "leader")
EVENTS_MAX = (1 << 63) - 1  # no number of an event is higher
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"  # lines that are too long: one that went on below would make the screen scroll


@verb(
    "status",
    examples=(
        "rota status",
        "rota status --watch",
        "rota status --check                    for a monitoring system",
        "rota status --json | jq '.nodes[].intent'",
    ),
    exits=(exits.DEGRADED, exits.UNREACHABLE),
)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@seconds_option("--interval", default="1s", least="100ms", help="Between two refreshes.")
@click.option(
    "--check", is_flag=True, help="Print a sentence for each thing that is wrong and exit with 3, or print 'ok'."
)
@master_option
@json_option
def status(masters: Sequence[str], watch: bool, interval: float, check: bool, as_json: bool) -> None:
    """Show nodes and services, and why a node gets no traffic."""
    if watch and check:
        raise Mistake("--watch and --check do not go together")
    if given("interval") and not watch:
        raise Mistake("--interval is the time between two refreshes: say --watch, too")
    with looking(masters) as master:
        if watch:
            _watch(master, interval, as_json)
        elif check:
            _check(master.status(timeout=LOOK_S), as_json)
        else:
            show(reply := master.status(timeout=LOOK_S), as_json, lambda: _lines(reply))


def _lines(reply: Reply) -> list[str]:
    from .render import status as lines

    return lines(reply, paint(), width())


def _check(reply: Reply, as_json: bool) -> None:
    from .check import problems
    from .render import plural

    found = problems(reply)
    if as_json:
        print_json({**reply, "degraded": found})
    elif found:
        click.echo("\n".join(f"degraded: {sentence}" for sentence in found))
    elif reply["master"]["state"] == "standby":
        click.echo(f"ok: standby of {reply['master']['peer']['name']}")
    else:
        ready = sum(service["ready"] for service in reply["services"])
        click.echo(f"ok: {plural(len(reply['nodes']), 'node')}, {plural(ready, 'ready process')}")
    sys.exit(exits.DEGRADED if found else exits.DONE)


def _watch(master: Admin, interval: float, as_json: bool) -> None:
    """A screen that is written over on a terminal; elsewhere one text after the other, or one JSON object a line."""
    in_place = on_a_screen() and not as_json
    try:
        if in_place:
            click.clear()
        with while_read():
            for reply in _repeatedly(master, interval):
                if as_json:
                    print_json(reply)
                elif in_place:
                    _overwrite([*_lines(reply), "", f"{time.strftime('%H:%M:%S')}  Ctrl-C ends"])
                else:
                    click.echo("\n".join([*_lines(reply), ""]))
    except KeyboardInterrupt:
        pass  # the way to end it


def _overwrite(lines: list[str]) -> None:
    import shutil

    shown = lines[: shutil.get_terminal_size((80, 24)).lines - 1]  # one more would scroll, and home is not home then
    text = "".join(f"{_REST_OF_LINE}{line}\n" for line in shown)  # behind a full line the cursor is on its last letter
    click.echo(f"{_CUT}{_HOME}{text}{_REST_OF_SCREEN}{_WRAP}", nl=False)


def _repeatedly(master: Admin, interval: float) -> Iterator[Reply]:
    """Status again and again; a master that does not answer for a while is told and waited for."""
    from ..common.errors import Timeout, Unavailable

    while True:
        try:
            yield master.status(timeout=LOOK_S)
        except (Timeout, Unavailable) as error:
            tell(f"{time.strftime('%H:%M:%S')}  {error}; trying again")
        time.sleep(interval)


@verb(
    "wait",
    examples=(
        "rota wait active web-1 web-2           nodes: in the pool, full share",
        "rota wait detached web-1               nodes: drained, processes stopped",
        "rota wait ready orders                 services: all processes take requests",
        "rota wait reloaded orders              services: no process left to replace",
        "rota wait paused orders                services: paused, nothing in flight",
        "rota wait maintenance orders           services: closed, nothing in flight",
        "rota wait leader                       there is an active master",
    ),
    exits=(exits.FAILED, exits.NOT_FOUND, exits.UNREACHABLE, exits.UNDER_WAY, exits.INTERRUPTED),
)
@click.argument("condition", metavar="CONDITION", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@seconds_option("--timeout", default="1m", help="How long to wait; then exit with 75.")
@master_option
@json_option
def wait(masters: Sequence[str], condition: str | None, names: Sequence[str], timeout: float, as_json: bool) -> None:
    """Return when a condition holds.

    CONDITION is active, detached, ready, reloaded, paused, maintenance or leader. NAMEs are nodes for active and
    detached, else services. Without a NAME: all of them; active and ready then want one at least.
    """
    from ..common.errors import NotFound
    from ..common.names import did_you_mean
    from .render import duration

    known = f"{', '.join(CONDITIONS[:-1])} or {CONDITIONS[-1]}"
    if condition is None:
        raise Mistake(f"which condition? {known}")
    if condition not in CONDITIONS:
        hint = did_you_mean(condition, CONDITIONS) or f"; it is {known}"
        raise NotFound(f"there is no condition '{condition}'{hint}")
    if condition == "leader" and names:
        raise Mistake(f"leader takes no NAME: it is the master that is active; not {names[0]!r}")
    ends = time.monotonic() + timeout
    with patient_admin(masters, timeout) as master:
        reply = until(master, condition, *names, ends=ends)
    show(reply, as_json, lambda: [f"{' '.join([condition, *reply['names']])}: after {duration(reply['waited_s'])}"])


@verb(
    "events",
    examples=("rota events", "rota events --follow", "rota events --follow --json | jq .text"),
    exits=(exits.UNREACHABLE,),
)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what happens, until Ctrl-C.")
@click.option("--since", type=Whole(0, EVENTS_MAX), default=0, metavar="N", help="Only events after number N.")
@click.option(
    "-n", "--limit", type=Whole(1, 10_000), default=50, metavar="N", help="At most the newest N. Default: 50."
)
@master_option
@json_option
def events(masters: Sequence[str], follow: bool, since: int, limit: int, as_json: bool) -> None:
    """Show what happened, who asked for it, and why.

    With --json: one object; with --follow, one object a line for each event.
    """
    with looking(masters) as master:
        found = list(master.events(since, limit=limit, timeout=LOOK_S))
        if as_json and not follow:
            print_json({"events": found})
            return
        _print_events(found, as_json)
        if follow:
            _follow(master, found[-1]["number"] if found else since, as_json)


def _follow(master: Admin, since: int, as_json: bool) -> None:
    try:
        with while_read():
            for event in master.events(since=since, follow=True):
                _print_events([event], as_json)
    except KeyboardInterrupt:
        pass  # the way to end it


def _print_events(found: Sequence[Reply], as_json: bool) -> None:
    from .render import event as line

    colours = paint()
    for event in found:
        if as_json:
            print_json(event)
        else:
            click.echo(line(event, colours, clock_of(event["at"], time.time())))


def clock_of(at: float, now: float) -> str:
    """The time of day; of another day with its date."""
    then = time.localtime(at)
    return time.strftime("%H:%M:%S" if then[:3] == time.localtime(now)[:3] else "%Y-%m-%d %H:%M:%S", then)
