"""Where the masters are: the control sockets, as the agent was told, and the backends, as the masters say."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.limits import BACKEND_OFFSET
from ..common.messages import Welcome
from .page import obey


class Masters:
    """By index; `backends` are what a process gets at its start."""

    def __init__(self, controls: Sequence[str]) -> None:
        self.controls = controls
        self.backends = [_backend_of(control) for control in controls]

    def told(self, master: int, welcome: Welcome) -> None:
        self.backends[master] = _backend_at(self.controls[master], welcome)

    def obey(self, master: int) -> int:
        """The word that sends processes to this one."""
        return obey(master, self.backends[master])


def _backend_of(control: str) -> str:
    """Where the backend of a master is, as long as it has not said otherwise."""
    head, _, port = control.rpartition(":")
    return f"{head}:{int(port) + BACKEND_OFFSET}"


def _backend_at(control: str, welcome: Welcome) -> str:
    dialled = control.removeprefix("tcp://").rpartition(":")[0]
    if not welcome.backend_port:
        return _backend_of(control)
    return f"tcp://{welcome.host or dialled}:{welcome.backend_port}"
