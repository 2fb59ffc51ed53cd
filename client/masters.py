"""Where the other sockets of a master are, and the other master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.addresses import complete, split
from ..common.limits import FRONTEND_OFFSET

if TYPE_CHECKING:
    from ..common.messages import Welcome


def frontend_address(control: str, welcome: Welcome) -> str:
    """Where the clients of this master connect: the host that was dialled, unless the master says another one."""
    host, port = split(control)
    return f"tcp://{welcome.host or host}:{welcome.frontend_port or port + FRONTEND_OFFSET}"


def other_address(welcome: Welcome) -> str:
    """Control address of the master that a standby follows; "" where it says none."""
    try:
        return complete(welcome.other) if welcome.other else ""
    except ValueError:
        return ""
