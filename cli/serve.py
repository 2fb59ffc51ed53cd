"""rota master | slave | witness: the daemons."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..common import exits
from ..common.collector import loading
from ..common.config import Config, load
from ..common.settings import MasterSettings, SlaveSettings, StandbySettings
from .gateway import Pairs, check_address, http_option, route_option
from .options import config_option, load_or_exit, options
from .verb import Failed, Mistake, verb

if TYPE_CHECKING:
    from .beside import Beside


@verb(
    "master",
    examples=(
        "rota master                            on all addresses, port 7700",
        "rota master --bind tcp://10.0.0.5:7700 --state /var/lib/rota",
        "rota master --http 0.0.0.0:8080 --route /=site",
        "rota master -c /etc/rota.toml          pools are set in [service.NAME]",
        "rota master --state DIR --backup-of tcp://primary:7700   a standby",
    ),
    exits=(exits.FAILED, exits.BAD_CONFIG),
)
@config_option
@options(MasterSettings)
@options(StandbySettings)
@http_option
@route_option
def master(config_file: str | None, flags: dict[str, object], more_routes: Pairs) -> None:
    """Run a master.

    It owns the pool and gives requests to processes. It uses three ports: that of --bind, which is the only one that
    nodes, clients and commands need to know, and the next two. TERM ends it, HUP reads the configuration again; nodes
    and clients find the next master by themselves.
    """
    with loading():
        from ..common.inuse import PortInUse
        from ..master.journal import JournalError
        from ..master.server import main
        from ..master.store import EngineError
        from .beside import Beside

    config = load_or_exit(config_file, flags)
    check_address(config, flags)
    try:
        beside = Beside(config_file, config, more_routes)
        try:
            main(config, lambda: reread(beside, config_file, flags), beside)
        finally:
            beside.end()
    except (PortInUse, JournalError, EngineError) as error:
        raise Failed(str(error)) from None


def reread(beside: Beside, config_file: str | None, flags: dict[str, object]) -> Config:
    """HUP: what the gateway beside it reads again, too, does not depend on whether the file is good."""
    beside.reread()
    return load(config_file, flags=flags)


@verb(
    "slave",
    examples=(
        "rota slave shop.orders:orders -m tcp://master:7700",
        "rota slave shop.py -p 4 --name web-1 --tag zone=a",
        "rota slave -c /etc/rota.toml           APP from the file",
    ),
    exits=(exits.FAILED, exits.LOAD_FAILED, exits.BAD_CONFIG),
)
@config_option
@options(SlaveSettings)
def slave(config_file: str | None, flags: dict[str, object]) -> None:
    """Run a slave node.

    It contributes processes that serve APP, a rota.Worker, a WSGI or an ASGI application: module:attribute or
    file.py:attribute; without :attribute, the only Worker there is taken. TERM drains the node and leaves; INT, QUIT
    or a second TERM leave at once. It listens on no port.
    """
    with loading():
        from ..worker.agent import main

    sys.exit(main(what_to_serve(load_or_exit(config_file, flags))))


@verb(
    "witness",
    examples=("rota witness -m tcp://a:7700,tcp://b:7700 --state /var/lib/rota-witness",),
    exits=(exits.FAILED, exits.BAD_CONFIG),
)
@config_option
@options(SlaveSettings, only=("name", "master", "tags", "state"))
def witness(config_file: str | None, flags: dict[str, object]) -> None:
    """Run a node without processes, which votes.

    It is for a pair of masters with few nodes: a standby cannot take over when most of the nodes are gone. A witness
    needs a machine of its own, apart from both masters, and next to no CPU and memory. TERM ends it.
    """
    from ..worker.agent import witness as run

    sys.exit(run(load_or_exit(config_file, flags).slave))


def what_to_serve(config: Config) -> SlaveSettings:
    """The settings of a node that has processes."""
    if config.slave.app is None:
        raise Mistake("what is to be served? Say APP (module:attribute or file.py), or app = … in [slave] of a file")
    return config.slave
