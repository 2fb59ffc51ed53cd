"""rota drain | rejoin | recheck | forget: what an operator wants of nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..common import exits
from .operator import (
    Reply,
    given,
    json_option,
    left,
    master_option,
    pairs,
    patient_admin,
    reason_option,
    seconds_option,
    show,
    waited,
    waits,
)
from .verb import Mistake, verb

if TYPE_CHECKING:
    from ..client.admin import Admin

F = TypeVar("F", bound=Callable[..., Any])

_CODES = (exits.FAILED, exits.NOT_FOUND, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY, exits.INTERRUPTED)


def _which_nodes(command: F) -> F:
    command = click.option("--tag", "tags", metavar="K=V", multiple=True, help="All nodes with this tag.")(command)
    command = click.option("--all", "everyone", is_flag=True, help="All nodes.")(command)
    return click.argument("nodes", nargs=-1, metavar="[NODE]...")(command)


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_waits = waits("2m", "How long to wait; then exit with 75, while it goes on.")


@verb(
    "drain",
    examples=(
        "rota drain web-1                       wait until it is detached",
        "rota drain --tag zone=a --reason 'new kernel' --deadline 5m",
        "rota drain --all --dry-run             would it be refused?",
    ),
    exits=_CODES,
)
@_which_nodes
@_waits
@seconds_option("--deadline", help="How long requests in flight may take before they are ended. Default: the master's.")
@click.option("--force", is_flag=True, help="Drain even if fewer than min_active nodes are left; that is recorded.")
@reason_option
@_dry_run
@master_option
@json_option
def drain(
    masters: Sequence[str],
    nodes: Sequence[str],
    everyone: bool,
    tags: Sequence[str],
    ends: float | None,
    as_json: bool,
    deadline: float | None,
    force: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Take nodes out of the pool without losing a request.

    They get nothing new from now on, finish what they have, and stop their processes: then they are detached. Drained
    nodes stay so, across restarts, until `rota rejoin`. Several nodes are drained together or not at all.
    """
    chosen = _chosen(nodes, everyone, tags)
    with patient_admin(masters, left(ends)) as master:
        reply = master.drain(
            *nodes,
            **chosen,
            deadline=deadline,
            force=force,
            reason=reason,
            dry_run=dry_run,
            wait=False,
            timeout=left(ends),
        )
        _finish(master, "drain", reply, "detached", bool(nodes), None if dry_run else ends, as_json)


@verb(
    "rejoin",
    examples=(
        "rota rejoin web-1                      wait until it is active",
        "rota rejoin web-1 --version 2.4",
        "rota rejoin --all --no-wait",
    ),
    exits=_CODES,
)
@_which_nodes
@_waits
@click.option(
    "--version",
    metavar="TEXT",
    default="",
    help="Version that its processes report in place of their own. Only a node that is detached takes another one.",
)
@reason_option
@_dry_run
@master_option
@json_option
def rejoin(
    masters: Sequence[str],
    nodes: Sequence[str],
    everyone: bool,
    tags: Sequence[str],
    ends: float | None,
    as_json: bool,
    version: str,
    reason: str,
    dry_run: bool,
) -> None:
    """Take drained nodes into the pool again.

    Their processes are fresh interpreters that run the code now on disk. A node is active when they are ready and
    its share of requests is full. One whose agent said goodbye is waited for by name only.
    """
    chosen = _chosen(nodes, everyone, tags)
    if given("version") and not version:  # of a script whose variable is not set
        raise Mistake("--version is empty")
    with patient_admin(masters, left(ends)) as master:
        reply = master.rejoin(
            *nodes, **chosen, version=version, reason=reason, dry_run=dry_run, wait=False, timeout=left(ends)
        )
        _finish(master, "rejoin", reply, "active", bool(nodes), None if dry_run else ends, as_json)


@verb("recheck", examples=("rota recheck web-1", "rota recheck --all"), exits=_CODES)
@_which_nodes
@_waits
@master_option
@json_option
def recheck(
    masters: Sequence[str],
    nodes: Sequence[str],
    everyone: bool,
    tags: Sequence[str],
    ends: float | None,
    as_json: bool,
) -> None:
    """Ask nodes again what they can contribute.

    What failed to start and waits for its next try is tried at once.
    """
    chosen = _chosen(nodes, everyone, tags)
    with patient_admin(masters, left(ends)) as master:
        reply = master.recheck(*nodes, **chosen, timeout=left(ends))
        _finish(master, "recheck", reply, "active", bool(nodes), ends, as_json)


@verb("forget", examples=("rota forget web-9",), exits=_CODES[:-1])
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@reason_option
@master_option
@json_option
def forget(masters: Sequence[str], nodes: Sequence[str], as_json: bool, reason: str) -> None:
    """Remove decommissioned nodes from the registry.

    They must be detached, dead or gone; the agent of one that is still here is told to leave. A service that no other
    node offers is forgotten with them.
    """
    with patient_admin(masters) as master:
        reply = master.forget(*nodes, reason=reason)
    now = reply["nodes"]
    show(reply, as_json, lambda: [f"{node}: forgotten{'' if node in now else ' before'}" for node in nodes])


def _chosen(nodes: Sequence[str], everyone: bool, tags: Sequence[str]) -> Reply:
    """Exactly one way to say which nodes."""
    if sum((bool(nodes), everyone, bool(tags))) != 1:
        raise Mistake("say which nodes, in one way: NODE…, --all or --tag k=v")
    return {"all": everyone, "tags": pairs(tags, "--tag")}


def _finish(
    master: Admin,
    verb: str,
    reply: Reply,
    condition: str,
    by_name: bool,
    ends: float | None,
    as_json: bool,
) -> None:
    """Show what has begun; wait until it is so; show that."""
    from ..client.admin import awaited
    from .render import duration, nodes_begun

    names = awaited(reply, condition, by_name)
    if ends is None or not names:  # --all of none
        show(reply, as_json, lambda: nodes_begun(verb, reply))
        return
    begun = "\n".join(nodes_begun(verb, reply))
    reply = waited(master, {**reply, "condition": condition}, begun, as_json, condition, *names, ends=ends)
    show(reply, as_json, lambda: [f"{name}: {condition} ({duration(reply['waited_s'])})" for name in names])
