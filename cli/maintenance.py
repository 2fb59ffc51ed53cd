"""rota maintenance SERVICE on | off: a service whose callers are told to come again later."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..common import exits
from .operator import given, json_option, master_option, patient_admin, reason_option, seconds_option, show
from .verb import verb


@verb(
    "maintenance",
    examples=(
        "rota maintenance shop on --retry-after 10m --reason 'new disk'",
        "rota maintenance shop off",
    ),
    exits=(exits.FAILED, exits.NOT_FOUND, exits.UNREACHABLE),
)
@click.argument("service")
@click.argument("state", type=click.Choice(["on", "off"]))
@seconds_option("--retry-after", help="What callers are told to wait. Default: 1m.")
@reason_option
@master_option
@json_option
def maintenance(
    masters: Sequence[str], service: str, state: str, retry_after: float | None, reason: str | None, as_json: bool
) -> None:
    """Close a service for maintenance, or open it again.

    All its callers are told at once that it is closed, over HTTP with status 503 and the service's page; no process is
    asked. What is running is finished. It outlasts restarts of the master.
    """
    from .render import plural

    on = state == "on"
    with patient_admin(masters) as master:
        reply = master.maintenance(service, on, **given(retry_after=retry_after, reason=reason))
    flight = f", {plural(reply['in_flight'], 'request')} in flight" if reply["in_flight"] else ""
    done = f"{service}: maintenance {state}{'' if reply['changed'] else ' already'}{flight if on else ''}"
    show(reply, as_json, lambda: [done])
