"""From a `rota.Worker` object to what another interpreter can load: `module:attribute` or `file.py:attribute`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..worker.app import Worker


class Source(NamedTuple):
    """`app_dir` None: the folder of the file, or the current one."""

    app: str
    app_dir: str | None

    def within(self, app_dir: str | os.PathLike[str] | None) -> Source:
        """The same in another folder; None: in its own."""
        return self if app_dir is None else self._replace(app_dir=os.path.abspath(app_dir))


def source_of(app: str | Worker, app_dir: str | os.PathLike[str] | None = None) -> Source:
    """Raises ValueError for a Worker that no module has as an attribute."""
    return (Source(app, None) if isinstance(app, str) else _found(app)).within(app_dir)


def _found(worker: Worker) -> Source:
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is worker and getattr(module, "__file__", None):
                return _source(module, name)
    raise ValueError(
        f"{worker!r} is in no module: define it at the top level of a file, so that other processes can load it"
    )


def _source(module: ModuleType, attribute: str) -> Source:
    file = os.path.abspath(str(module.__file__))
    if "." in module.__name__ and _is_importable(module.__name__, file):
        # By its name: a file of a package may import its neighbours relatively.
        depth = module.__name__.count(".") + (os.path.basename(file) == "__init__.py")
        root = file
        for _ in range(depth + 1):
            root = os.path.dirname(root)
        return Source(f"{module.__name__}:{attribute}", root)
    return Source(f"{file}:{attribute}", None)


def _is_importable(name: str, file: str) -> bool:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin == file
