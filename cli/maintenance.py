"""rota maintenance SERVICE on | off: a service whose callers are told to come back later."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..common import exits
from .operator import (
    OneOf,
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
from .verb import Mistake, verb

_CODES = (exits.FAILED, exits.NOT_FOUND, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY, exits.INTERRUPTED)


@verb(
    "maintenance",
    examples=(
        "rota maintenance shop on --retry-after 10m --reason 'new disk'",
        "rota maintenance reports on --stop     its processes end, too",
        "rota maintenance shop off",
    ),
    exits=_CODES,
)
@click.argument("service")
@click.argument("state", type=OneOf(["on", "off"]), metavar="on|off")
@click.option("--stop", is_flag=True, help="End its processes, too, so that other services have their room.")
@seconds_option("--retry-after", help="What callers are told to wait. Default: 1m.")
@waits("1m", "How long to wait for what is in flight; then exit with 75.")
@reason_option
@master_option
@json_option
def maintenance(
    masters: Sequence[str],
    service: str,
    state: str,
    stop: bool,
    retry_after: float | None,
    ends: float | None,
    reason: str,
    as_json: bool,
) -> None:
    """Close a service for maintenance, or open it again.

    All its callers are told at once that it is closed, over HTTP with status 503 and the service's page; no process is
    asked. Returns when what is running is finished, or at once with --no-wait. A closed service stays closed when the
    master restarts.
    """
    from .render import plural

    if state == "off" and (stop or retry_after is not None):
        raise Mistake("--stop and --retry-after are for `on`: `off` opens the service, and its processes start again")
    with patient_admin(masters, left(ends)) as master:
        reply = master.maintenance(
            service,
            state == "on",
            stop=stop,
            retry_after=retry_after,
            reason=reason,
            wait=False,
            timeout=left(ends),
        )
        flight = f"{plural(reply['in_flight'], 'request')} in flight" if state == "on" and reply["in_flight"] else ""
        if flight and ends is not None:
            begun = f"{service}: closed, waiting for {flight}"
            reply = waited(master, reply, begun, as_json, "maintenance", service, ends=ends)
            flight = ""
    done = f"{service}: maintenance {state}{'' if reply['changed'] else ' already'}"
    show(reply, as_json, lambda: [", ".join(filter(None, (done, flight)))])
