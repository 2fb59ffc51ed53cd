"""What an agent's core wants done, for the shell to carry out in its order. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ...common import messages
from ...common.messages import Message
from .ports import Try


class Connect(NamedTuple):
    """Drop the connection, if there is one, and open one to this master."""

    master: int


class Hello(NamedTuple):
    message: messages.AgentHello


class Send(NamedTuple):
    message: Message


class Spawn(NamedTuple):
    """To be answered with `spawned`, or with `exited` when it could not be."""

    incarnation: str
    service: str


class Stop(NamedTuple):
    """Store the stop word: finish and exit."""

    incarnation: str


class Kill(NamedTuple):
    """KILL goes to the process group, the other signals to the process."""

    incarnation: str
    signal: int


class SetFloor(NamedTuple):
    """Store the floor and wait 2 ms, unless it is as high already; answer with `recalled`."""

    incarnation: str
    floor: int
    since: int  # the first delivery whose reply is asked for; 0: of none


class Fence(NamedTuple):
    """Store epoch and the master to obey in every page, those to come included."""

    epoch: int
    master: int


class Lease(NamedTuple):
    """Note it by the clock of leases. The beat that gives it goes out after this."""

    master: str
    epoch: int
    lasts_s: float


class Unsure(NamedTuple):
    """So long, by the clock of leases, another agent may lease under our name. Then its master is asked again."""

    lasts_s: float


class Reach(NamedTuple):
    """The only master is not active: it has to be reached over a voter connection, for it may ask for our vote."""


class Remember(NamedTuple):
    intent: messages.Intent
    epoch: int


class Weigh(NamedTuple):
    """Answer with `weighed`: the resident memory of each process."""


class Note(NamedTuple):
    """A sentence for the log."""

    text: str


class Quit(NamedTuple):
    """Say BYE, if connected, and exit."""


Effect = (
    Connect
    | Hello
    | Send
    | Spawn
    | Stop
    | Kill
    | SetFloor
    | Fence
    | Lease
    | Unsure
    | Reach
    | Remember
    | Weigh
    | Try
    | Note
    | Quit
)
