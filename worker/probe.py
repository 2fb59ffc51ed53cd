"""`python -m rota.worker.probe`: what an application offers, learnt in an interpreter of its own.

The agent runs no code of users, yet must know the name of their service before it can offer it. Specification in on
stdin as for a process; the interface out on the descriptor it names, as JSON. Exit 70 with a traceback when the
application does not load.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until it is loaded: before the other imports

import json
import os
import sys

from ..common import collector
from ..common.errors import LoadError
from ..common.exits import LOAD_FAILED
from .loading import load_application


def main() -> int:
    collector.loaded()
    specification = json.load(sys.stdin)
    try:
        worker, version = load_application(specification)
    except LoadError as error:
        print(error.traceback_text or error, file=sys.stderr)
        return LOAD_FAILED
    with os.fdopen(specification["answer_fd"], "w") as answer:
        json.dump({**worker.interface(), "version": version}, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
