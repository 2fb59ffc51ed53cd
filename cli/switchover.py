"""rota switchover: the standby becomes the active master, in good order."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import click

from ..common import exits
from .operator import (
    LOOK_S,
    Reply,
    admin,
    json_option,
    looking,
    master_option,
    patient_admin,
    reason_option,
    seconds_option,
    show,
    tell,
)
from .verb import Failed, verb

TOLD_S = 600.0  # between two lines about how long it still takes
STEP_S = 1.0  # the wall clock may be set meanwhile


def _clock(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", text or "")
    if text is not None and (found is None or int(found[1]) > 23 or int(found[2]) > 59):
        raise click.BadParameter(f"HH:MM expected, not {text!r}", ctx, param)
    return (int(found[1]), int(found[2])) if found else None


@verb(
    "switchover",
    examples=(
        "rota switchover --reason 'new kernel'",
        "rota switchover --at 03:30             wait until then, local time",
        "rota switchover --force -m tcp://b:7700    b's active master is gone",
    ),
    exits=(exits.FAILED, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY, exits.INTERRUPTED),
)
@click.option(
    "--force", is_flag=True, help="Let a standby take over that does not do so by itself. It still needs the votes."
)
@click.option(
    "--at", metavar="HH:MM", callback=_clock, help="Wait until then, and say now and then how long that still takes."
)
@seconds_option(
    "--timeout", default="1m", help="How long to wait for the other master; then exit with 75, while it goes on."
)
@reason_option
@master_option
@json_option
def switchover(
    masters: Sequence[str],
    force: bool,
    at: tuple[int, int] | None,
    timeout: float,
    as_json: bool,
    reason: str,
) -> None:
    """Hand over from the active master to its standby.

    Returns when the standby is active, and says what that cost. The old master is its standby from then on, and stays
    so: another `rota switchover` leads back.
    """
    if at is not None:
        if not force:
            _has_standby(masters)
        _wait_until(_next(at, time.time()), time.time, time.sleep)
    ends = time.monotonic() + timeout
    with admin(masters) if force else patient_admin(masters, timeout) as master:
        cost = master.switchover(force=force, reason=reason, timeout=ends - time.monotonic())
    after = _status_after(cost)
    show({**cost, "master": after}, as_json, lambda: _lines(cost, after))


def _status_after(cost: Reply) -> Reply | None:
    """Of the new master; None: it is active, and says no more."""
    from ..common.errors import Error

    try:
        with admin([cost["address"]]) as risen:
            after: Reply = risen.status(timeout=LOOK_S)["master"]
            return after
    except Error as error:
        tell(f"what {cost['to']} is like now is not known: {error}")
        return None


def _lines(cost: Reply, after: Reply | None) -> list[str]:
    from .check import of_master
    from .render import duration, plural, printable

    took = duration(cost["took_ms"] / 1000)
    given_back = cost["given_back"]
    back = f"; {plural(given_back, 'request')} given back, their clients send them again" if given_back else ""
    first = f"{cost['to']} is active with epoch {cost['epoch']}, after {took}{back}"
    before = f"{cost['from'] or 'the other master'} was, with epoch {cost['epoch_before']}"
    wrong = of_master(after) if after is not None else ()
    return [printable(line) for line in (first, before, *(f"now: {sentence}" for sentence in wrong))]


def _has_standby(masters: Sequence[str]) -> None:
    """What would fail at night is told by day, when it is asked for."""
    with looking(masters) as master:
        status = master.status(timeout=LOOK_S)["master"]
    peer = status.get("peer")
    if peer is None or peer["liveness"] != "live":
        name = f"its standby {peer['name']} is {peer['liveness']}" if peer else "it has no standby"
        raise Failed(f"{status['name']} has nobody to hand over to: {name}", exits.REFUSED)


def _next(at: tuple[int, int], now: float) -> float:
    """Wall time of the next HH:MM of this machine's zone, whatever the length of the day."""
    day = time.localtime(now)
    for days in (0, 1):
        then = time.mktime((day.tm_year, day.tm_mon, day.tm_mday + days, *at, 0, 0, 0, -1))
        if then > now:
            break
    return then


def _wait_until(then: float, wall: Callable[[], float], sleep: Callable[[float], None]) -> None:
    from .render import duration

    tell_at = then - wall()  # seconds left at which something is said
    clock = time.strftime("%H:%M", time.localtime(then))
    while (left := then - wall()) > 0:
        if left <= tell_at:
            tell(f"switchover at {clock}, in {duration(left)}; Ctrl-C ends the waiting")
            tell_at = left - TOLD_S if left > TOLD_S else 60.0 if left > 60.0 else -1.0
        sleep(min(STEP_S, left))
