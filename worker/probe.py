"""`python -m rota.worker.probe`: what an application offers, learnt in an interpreter of its own.

The agent runs no code of users, yet must know the name of their service before it can offer it. Specification in on
stdin as for a process; the name out on the descriptor that it tells, a line of JSON. Exit 70 with a traceback when the
application does not load.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until it is loaded: before the other imports

import atexit
import json
import os
import sys
from contextlib import suppress
from typing import NoReturn

from ..common import collector
from ..common.errors import LoadError
from ..common.exits import LOAD_FAILED
from .loading import load_application
from .orphans import end_with


def main() -> int:
    collector.loaded()
    specification = json.load(sys.stdin)
    end_with(specification["agent_pid"])
    try:
        worker, _ = load_application(specification)
    except LoadError as error:
        print(error.traceback_text or error, file=sys.stderr)
        return LOAD_FAILED
    os.write(specification["answer_fd"], json.dumps({"service": worker.name}).encode() + b"\n")
    return 0


def _end(status: int) -> NoReturn:
    """Threads that the application has started may never end, and the interpreter would wait for them."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # one of the application's own
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    _end(main())
