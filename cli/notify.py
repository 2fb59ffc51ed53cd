"""rota notify test: whether notifications reach those whom they are for."""

from __future__ import annotations

import secrets
import sys
import time
from typing import Any

import click

from ..common import exits
from .operator import json_option, print_json, tell
from .options import config_option, load_or_exit
from .verb import Failed, VerbGroup, verb


@click.group("notify", cls=VerbGroup)
def notify_group() -> None:
    """Test the notifications of a master ([notify.NAME])."""


@verb(
    "test",
    examples=("rota notify test -c /etc/rota.toml", "rota notify test ops -c /etc/rota.toml"),
    exits=(exits.FAILED, exits.NOT_FOUND, exits.BAD_CONFIG),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@config_option
@json_option
def test(names: tuple[str, ...], config_file: str | None, as_json: bool) -> None:
    """Send a notification to each receiver, or to those named.

    The receivers are those of the configuration. Each is sent one notification, from this machine, by the code that
    the master uses. Exit 1 if one of them was not reached.
    """
    from ..common.names import unknown

    config = load_or_exit(config_file)
    if not config.notify:
        raise Failed(
            "there is no section [notify.NAME] in the configuration; -c FILE says which file to read", exits.NOT_FOUND
        )
    strange = next((name for name in names if name not in config.notify), None)
    if strange is not None:
        raise Failed(unknown("receiver", strange, config.notify), exits.NOT_FOUND)
    results = [_send(config, name) for name in names or config.notify]
    if as_json:
        print_json({"receivers": results})
    else:
        for result in results:
            (click.echo if result["delivered"] else tell)(f"{result['receiver']}: {result['text']}")
    sys.exit(exits.DONE if all(result["delivered"] for result in results) else exits.FAILED)


def _send(config: Any, name: str) -> dict[str, Any]:
    from ..common.settings.notify import TEST
    from ..master.send import Undelivered, deliver

    note = {
        "schema": 1,
        "id": f"{secrets.token_hex(6)}-{name}-{TEST}",
        "number": 0,
        "kind": TEST,
        "master": config.master.name,
        "subject": config.master.name,
        "text": "sent by `rota notify test`: nothing has happened",
        "at": time.time(),
    }
    try:
        return {"receiver": name, "delivered": True, "text": deliver(config.notify[name].as_data(), note)}
    except Undelivered as error:
        return {"receiver": name, "delivered": False, "text": str(error)}


notify_group.add_command(test)
