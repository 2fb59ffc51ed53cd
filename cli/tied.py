"""`python -m rota.cli.tied FD COMMAND…`: a rota command that does not outlive whoever started it.

FD is the reading end of a pipe whose writing end only the parent holds. When the parent is gone, however it ended, the
kernel closes that end and signals us. Unlike PR_SET_PDEATHSIG it does not also fire when merely the *thread* ends that
started us; unlike a thread that reads the pipe it costs a busy loop nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys

from ..common.collector import loading


def main() -> None:
    end_with_parent(int(sys.argv[1]))
    with loading():
        from .main import main as rota

    rota(args=sys.argv[2:], prog_name="rota")


def end_with_parent(fd: int) -> None:
    """INT, the fast way out, as soon as the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command has its own handler; a shell's `&` has it ignored
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGINT)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(fd, 0)
    if poll.poll(0):  # it was closed before we asked to be told
        os._exit(1)
    os.set_inheritable(fd, False)


if __name__ == "__main__":
    main()
