"""Where the masters are: the control sockets, as the agent was told, and the backends, as the masters say."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.addresses import split
from ..common.limits import BACKEND_OFFSET
from ..common.messages import Welcome
from .page import obey


class Masters:
    """By index; `backends` are what a process gets at its start."""

    def __init__(self, controls: Sequence[str]) -> None:
        self.controls = controls
        self.backends = [_backend(control) for control in controls]

    def told(self, master: int, welcome: Welcome) -> None:
        self.backends[master] = _backend(self.controls[master], welcome.host, welcome.backend_port)

    def obey(self, master: int) -> int:
        """The word that sends processes to this one."""
        return obey(master, self.backends[master])


def _backend(control: str, host: str = "", port: int = 0) -> str:
    """`host`, `port`: as the master has said, if it has."""
    dialled, control_port = split(control)
    return f"tcp://{host or dialled}:{port or control_port + BACKEND_OFFSET}"
