"""`Worker.run()`: `rota slave` on the file that is being run. Its processes load that file by path or module name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from ..common.addresses import control_addresses

if TYPE_CHECKING:
    from .app import Worker

_OPTIONS = (
    *("name", "processes", "version", "tags", "python", "state", "app_dir"),
    *("start_timeout", "drain_deadline", "stop_grace"),
)


def run(worker: Worker, *, master: str | Sequence[str] | None = None, **options: Any) -> NoReturn:
    """Serve until told to leave, then exit as `rota slave` does.

    master    control address(es), the primary first; default: ROTA_MASTER, then this machine
    options   name, processes, version, tags, python, state, app_dir, start_timeout, drain_deadline, stop_grace, as the
              flags of `rota slave`; what is None has its default

    Raises RuntimeError when processes could not find the worker again: it must be at the top level of the file;
    ValueError for what is no address, or no value of its option; and TypeError for what is no option.
    """
    from ..common.declare import given
    from ..common.descriptors import open_standard
    from ..common.settings import SlaveSettings
    from .agent import main

    chosen = given(SlaveSettings, _OPTIONS, options)
    open_standard()
    app, masters = application(worker, sys.modules["__main__"]), control_addresses(master)
    sys.exit(main(SlaveSettings(app=app, master=masters, service=worker.name, **chosen)))


def application(worker: Worker, module: ModuleType) -> str:
    """What a fresh interpreter has to load, `file.py:attribute` or `module:attribute`, to find this worker."""
    attribute = next((name for name, value in vars(module).items() if value is worker), None)
    file = getattr(module, "__file__", None)
    if attribute is None or file is None:
        raise RuntimeError(
            f"{worker.name}.run(): its processes load the file that is run, and must find the worker at its top level"
        )
    spec = getattr(module, "__spec__", None)
    if spec is not None:  # python -m package.module
        return f"{spec.name.removesuffix('.__main__')}:{attribute}"
    return f"{_as_typed(file)}:{attribute}"


def _as_typed(file: str) -> str:
    """`__file__` has its links resolved, at least those of the current directory; the command line has them."""
    typed = sys.argv[0]
    try:
        return typed if os.path.samefile(typed, file) else file
    except OSError:
        return file
