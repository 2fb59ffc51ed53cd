"""What a master is given as it begins in a role, as `Master` or as `Standby`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...common.settings import MasterSettings, ServiceSettings, StandbySettings
from .records import Restored


class Identity(NamedTuple):
    """What peers are told of this master."""

    name: str
    frontend_port: int = 0
    backend_port: int = 0
    host: str = ""  # of these ports; "" = the one that was dialled
    address: str = ""  # of its control socket, for other masters
    pid: int = 0


class Sections(NamedTuple):
    """Its settings. Those of a service are asked for by name: a reload may have changed them."""

    master: MasterSettings
    services: Callable[[str], ServiceSettings]
    standby: StandbySettings = StandbySettings()

    @property
    def durable(self) -> bool:
        return bool(self.master.state)


class Past(NamedTuple):
    """What its journal has."""

    known: Restored  # the sum of all records
    last_record: int = 0
    epoch: int = 0  # of the last active master that is known: of an active one, its own
    epoch_by: str = ""  # name of that master
    stood: int = 0  # the highest epoch that anybody is known to have stood for


class Sources(NamedTuple):
    """What no core makes by itself."""

    token: Callable[[], int]  # random 64-bit numbers but 0
    wall: Callable[[], float]  # the time of day

    def random(self) -> float:
        """A random number from 0 to 1."""
        return self.token() / 2**64


class Heritage(NamedTuple):
    """What an active master has of the one before it, from the standby that it was (docs/STANDBY.md)."""

    granted: Mapping[str, float] = {}  # votes: node → when its lease runs out
    answers: Sequence[tuple[bytes, bytes]] = ()  # of the master before: session, ANSWER frame
    events: Sequence[Mapping[str, Any]] = ()
    complete: bool = False  # of all that the master before had recorded, nothing is missing here
