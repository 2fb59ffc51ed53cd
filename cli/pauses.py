"""rota pause | resume: a service whose requests are held while something behind it is switched."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..common import exits
from .operator import (
    json_option,
    left,
    master_option,
    patient_admin,
    reason_option,
    seconds_option,
    show,
    waited,
    waits,
)
from .verb import verb

_CODES = (exits.FAILED, exits.NOT_FOUND, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY)


@verb(
    "pause",
    examples=(
        "rota pause shop                        wait until nothing is in flight",
        "rota pause shop --for 2m --reason 'new database'",
        "rota pause shop --no-wait --json | jq .in_flight",
    ),
    exits=(*_CODES, exits.INTERRUPTED),
)
@click.argument("service")
@seconds_option("--for", "duration", help="When it ends by itself. Default: the service's pause_for (30s); at most 1h.")
@waits("1m", "How long to wait for what is in flight; then exit with 75.")
@reason_option
@master_option
@json_option
def pause(
    masters: Sequence[str],
    service: str,
    duration: float | None,
    ends: float | None,
    as_json: bool,
    reason: str,
) -> None:
    """Hold the requests of a service, until `rota resume`.

    Callers wait within their timeouts, up to queue_limit of them; nobody gets an error. Requests in flight go on: the
    command returns when none is left, or at once with --no-wait. A second pause starts over from now. A pause ends by
    itself; if it does so before the last request in flight is answered, the exit code is 1.
    """
    from . import render

    with patient_admin(masters, left(ends)) as master:
        reply = master.pause(service, duration=duration, reason=reason, wait=False, timeout=left(ends))
        begun = f"{service}: paused for {render.duration(reply['left_s'])}"
        flight = render.plural(reply["in_flight"], "request")
        if ends is None:
            show(reply, as_json, lambda: [f"{begun}, {flight} in flight"])
            return
        told = f"{begun}, waiting for {flight} in flight" if reply["in_flight"] else ""
        reply = waited(master, reply, told, as_json, "paused", service, ends=ends)
    show(reply, as_json, lambda: [f"{begun}, nothing is in flight"])


@verb("resume", examples=("rota resume shop",), exits=_CODES)
@click.argument("service")
@reason_option
@master_option
@json_option
def resume(masters: Sequence[str], service: str, reason: str, as_json: bool) -> None:
    """Dispatch what is held of a service, the oldest first."""
    from .render import plural

    with patient_admin(masters) as master:
        reply = master.resume(service, reason=reason)
    held = f"resumed; it held {plural(reply['held'], 'request')}" if reply["changed"] else "was not paused"
    show(reply, as_json, lambda: [f"{service}: {held}"])
