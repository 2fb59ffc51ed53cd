"""rota blacklist list | clear | disable | enable: nodes that were ill."""

from __future__ import annotations

from collections.abc import Sequence

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
    reason_option,
    show,
    width,
)
from .verb import VerbGroup, verb

_LOOK_CODES = (exits.UNREACHABLE,)
_CODES = (exits.FAILED, exits.NOT_FOUND, exits.REFUSED, exits.UNREACHABLE, exits.UNDER_WAY)


@click.group("blacklist", cls=VerbGroup)
def blacklist_group() -> None:
    """Show and clear nodes that were taken out because they are ill.

    A node whose processes crash, hang or fail their health checks goes on the blacklist for 5 s, and twice as long each
    further time, up to 5 minutes; then it is tried with one request at a time. The settings are those of
    [service.NAME.health].
    """


@verb("list", examples=("rota blacklist list", "rota blacklist list --json | jq '.nodes[].cause'"), exits=_LOOK_CODES)
@master_option
@json_option
def list_(masters: Sequence[str], as_json: bool) -> None:
    """List nodes that are ill, or were lately."""
    with looking(masters) as master:
        reply = master.blacklist(timeout=LOOK_S)
    show(reply, as_json, lambda: _lines(reply))


@verb("clear", examples=("rota blacklist clear web-1 --reason 'new disk'",), exits=_CODES)
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@reason_option
@master_option
@json_option
def clear(masters: Sequence[str], nodes: Sequence[str], reason: str, as_json: bool) -> None:
    """Take nodes back at once, and forget how often they were ill."""
    _change("clear", masters, nodes, reason, as_json, "cleared", "nothing to clear")


@verb("disable", examples=("rota blacklist disable orders", "rota blacklist disable web-1"), exits=_CODES)
@click.argument("names", nargs=-1, required=True, metavar="SERVICE|NODE...")
@reason_option
@master_option
@json_option
def disable(masters: Sequence[str], names: Sequence[str], reason: str, as_json: bool) -> None:
    """Keep a node, or the nodes of a service, off the blacklist.

    A node that is on it comes back at once. Nodes are still checked, and shown as degraded if they are ill. This
    outlasts restarts of the master.
    """
    _change("disable", masters, names, reason, as_json, "disabled", "disabled already")


@verb("enable", examples=("rota blacklist enable orders",), exits=_CODES)
@click.argument("names", nargs=-1, required=True, metavar="SERVICE|NODE...")
@reason_option
@master_option
@json_option
def enable(masters: Sequence[str], names: Sequence[str], reason: str, as_json: bool) -> None:
    """End what `disable` began."""
    _change("enable", masters, names, reason, as_json, "enabled", "enabled already")


for _command in (list_, clear, disable, enable):
    blacklist_group.add_command(_command)


def _change(
    action: str, masters: Sequence[str], names: Sequence[str], reason: str, as_json: bool, done: str, already: str
) -> None:
    with patient_admin(masters) as master:
        reply = master.blacklist(action, *names, reason=reason)
    show(reply, as_json, lambda: [f"{each['name']}: {done if each['changed'] else already}" for each in reply["names"]])


# ---- as text --------------------------------------------------------------------------------------------------------


def _lines(reply: Reply) -> list[str]:
    from .render import printable

    lines = _table(reply["nodes"]) if reply["nodes"] else ["no node is ill"]
    lines += [f"panic: {each['service']}: {printable(each['text'])}" for each in reply["panics"]]
    return lines + [f"disabled for {name}" for name in reply["disabled"]]


def _table(nodes: Sequence[Reply]) -> list[str]:
    from .render import Cell, duration, number, printable, table

    header = [Cell("NODE"), Cell("HEALTH"), *map(number, ("SINCE", "LEFT", "TIMES")), Cell("SERVICE"), Cell("CAUSE")]
    rows = [
        [
            Cell(each["node"], "bold"),
            Cell(
                each["health"], "" if each["health"] == "up" else "red" if each["health"] == "blacklisted" else "yellow"
            ),
            number(duration(each["since_s"])),
            number("-" if each["until_s"] is None else duration(each["until_s"])),
            number(each["times"]),
            Cell(each["service"]),
            Cell(printable(each["cause"])),
        ]
        for each in nodes
    ]
    return table(header, rows, paint(), width())
