"""What the core wants done. The shell empties it after each batch of events; nothing else leaves the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...common import exits, messages, wire

if TYPE_CHECKING:
    from .pool import Slot
    from .sessions import Session, Source


class Dial(NamedTuple):
    """Open the link to the other master, in place of one that there may be."""

    address: str


class HangUp(NamedTuple):
    """End it."""


class SayPeer(NamedTuple):
    frame: bytes


class Rise(NamedTuple):
    """Make this epoch durable. `by`: who is active in it; "": we stand for it, and want to hear `raised`."""

    epoch: int
    by: str


class BecomeActive(NamedTuple):
    """We have won: make a `Master` of what we have."""

    epoch: int
    granted: dict[str, float]  # node → when its vote, which is a lease, runs out
    answers: list[tuple[bytes, bytes]]  # session, ANSWER frame
    complete: bool  # the master before had recorded nothing that is not known here


class StepDown(NamedTuple):
    """Another epoch is higher than ours, or we have handed over: make a `Standby` of what we have."""

    seen: int


class Notify(NamedTuple):
    """Tell those who want to hear of it (common/settings/notify.py)."""

    kind: str
    subject: str
    text: str


RoleEffect = Dial | HangUp | SayPeer | Rise | BecomeActive | StepDown | Notify


class Outbox:
    """Lists of effects, by socket, in the order in which they are to happen."""

    def __init__(self) -> None:
        self.frontend: list[tuple[bytes, bytes]] = []  # route, frame: WELCOME, REFUSED, WHO
        self.backend: list[tuple[bytes, bytes]] = []  # the same
        # Those with something `outgoing`, each once. What goes to one peer goes together; if its route does not take
        # it the core wants to know: `undeliverable(slot, frames, gone)`, `answer_blocked(session, frames, gone)`.
        self.slots: list[Slot] = []
        self.sessions: list[Session] = []
        self.control: list[tuple[bytes, bytes]] = []
        # To be durable, in this order; answered with recorded(n). A list takes the place of all that was before.
        self.records: list[tuple[int, bytes | list[bytes]]] = []
        self.probes: list[Slot] = []  # to be told when the route is gone and everything from it is read

        self.cuts: list[Source] = []  # connections to be ended
        self.role: list[RoleEffect] = []  # of one master of a pair

    def __bool__(self) -> bool:
        return bool(
            self.slots
            or self.sessions
            or self.frontend
            or self.backend
            or self.control
            or self.records
            or self.probes
            or self.cuts
            or self.role
        )

    def say(self, route: bytes, token: int, message: messages.Message) -> None:
        """One message on the control socket. A result that no message holds is told as that."""
        try:
            frame = messages.framed(wire.CONTROL, token, message)
        except ValueError as error:
            if not isinstance(message, messages.Result):
                return  # nothing else grows with what peers say: fleet and verbs refuse what is that long
            data = {"schema": 1, "error": f"the answer is too large: {error}"}
            result = messages.Result(message.id, False, exits.FAILED, data)
            frame = messages.framed(wire.CONTROL, token, result)
        self.control.append((route, frame))
