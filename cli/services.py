"""rota reload | scale: what an operator wants of a service's processes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..common import exits
from .operator import (
    Whole,
    json_option,
    left,
    master_option,
    patient_admin,
    reason_option,
    show,
    tell,
    waited,
    waits,
)
from .verb import verb

_CODES = (exits.FAILED, exits.NOT_FOUND, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY, exits.INTERRUPTED)
_waits = waits("5m", "How long to wait; then exit with 75, while it goes on.")


@verb("reload", examples=("rota reload orders", "rota reload orders --no-wait"), exits=_CODES)
@click.argument("service")
@_waits
@reason_option
@master_option
@json_option
def reload(masters: Sequence[str], service: str, ends: float | None, as_json: bool, reason: str) -> None:
    """Replace the processes of a service, one at a time.

    The fresh ones run the code that is now on disk.
    """
    from .render import duration, plural

    with patient_admin(masters, left(ends)) as master:
        reply = master.reload(service, reason=reason, wait=False, timeout=left(ends))
        begun = f"{service}: {plural(reply['processes'], 'process')} to replace, one at a time"
        if ends is None:
            show(reply, as_json, lambda: [begun])
            return
        reply = waited(master, reply, begun, as_json, "reloaded", service, ends=ends)
    show(reply, as_json, lambda: [f"{service}: reloaded ({duration(reply['waited_s'])})"])


@verb("scale", examples=("rota scale orders 8",), exits=_CODES)
@click.argument("service")
@click.argument("processes", type=Whole(0, 1_000_000), metavar="N")
@_waits
@reason_option
@master_option
@json_option
def scale(
    masters: Sequence[str],
    service: str,
    processes: int,
    ends: float | None,
    as_json: bool,
    reason: str,
) -> None:
    """Set how many processes a service has.

    It counts over all nodes, and must be from min_processes to max_processes.
    """
    from .render import plural

    with patient_admin(masters, left(ends)) as master:
        reply = master.scale(service, processes, reason=reason, timeout=left(ends))
        room = reply.get("room", processes)
        if ends is not None:
            reply = waited(master, reply, "", as_json, "ready", service, ends=ends)
    ready = " ready" if ends is not None and room >= processes else ""
    show(reply, as_json, lambda: [f"{service}: {plural(processes, 'process')}{ready}"])
    if room < processes:
        tell(f"the nodes have room for {room}; the others start when there is more")
