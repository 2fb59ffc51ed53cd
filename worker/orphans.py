"""Processes whose parent has ended: ours end with theirs, and those of others that the kernel gives us are reaped."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Container

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """This process is killed when the one that started it, of this pid, ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked to be told


def reap_adopted(own: Container[int]) -> None:
    """Those that have ended and are not of these pids. The first process of a container inherits what others leave,
    and without this each would keep its number for ever.
    """
    try:
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in own:
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        pass  # there is none at all
