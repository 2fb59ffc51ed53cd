"""From what the user typed to a `Worker`: `module:attribute` or `path/to/file.py:attribute`, and its version.

What a WSGI or ASGI application is made into stands in `interface.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any

from ..common.errors import LoadError
from ..common.limits import PAGE_ROWS
from ..common.names import check_version, did_you_mean
from . import app
from .app import Worker, arguments_needed
from .interface import AUTO, worker_of
from .tracebacks import text_of, user_frames


def load_application(specification: Mapping[str, Any]) -> tuple[Worker, str]:
    """The Worker and its version, as the agent specified it. The current directory is the app dir. Raises LoadError."""
    app, interface, service = specification["app"], specification["interface"], specification["service"]
    # Resolved: what this process imports later comes from the release that it started with.
    app_dir = None if names_a_file(split_spec(app)[0]) else os.getcwd()
    worker = load(app, app_dir=app_dir, factory=specification["factory"], interface=interface, service=service)
    _set_at_once(worker, app, specification.get("threads", 1), specification.get("concurrency", PAGE_ROWS))
    return worker, version_of(worker, flag=specification["version"] or None, app_dir=".")


def _set_at_once(worker: Worker, app: str, threads: int, concurrency: int) -> None:
    """How many requests it serves at once; what it has no use for would be waited for in vain."""
    one = "is served one request at a time"
    if concurrency != PAGE_ROWS and not worker.is_async:
        kind = one if worker.threads is None else "is a WSGI application: say --threads"
        raise LoadError(f"--concurrency {concurrency}: that is for async applications; {app} {kind}")
    if worker.threads is not None:
        worker.threads = threads
    elif threads > 1:
        kind = "serves many requests at once without" if worker.is_async else one
        raise LoadError(f"--threads {threads}: threads are for WSGI applications; {app} {kind}")


def load(
    spec: str, *, app_dir: str | None = None, factory: bool = False, interface: str = AUTO, service: str = ""
) -> Worker:
    """Import the application and return its Worker.

    spec        `module:attribute` or `file.py:attribute`; without `:attribute` the only Worker there is taken
    app_dir     comes first on sys.path; default: the folder of the file, or the current one
    factory     the attribute is a function without parameters that makes the application
    interface   "auto", or what it must be: "rota", "wsgi", "asgi"
    service     the name of a WSGI or ASGI application; default: made of that of its module

    Raises LoadError with the application's own traceback for whatever goes wrong, sys.exit() at import included.
    """
    target, attribute = split_spec(spec)
    if factory and not attribute:
        raise LoadError(f"--factory needs the name of the function: {target}:create")
    is_file = names_a_file(target)
    _put_first(app_dir or (os.path.dirname(target) if is_file else ""))
    with _loading(f"{target} failed to import"):
        module = _import_file(target) if is_file else _import_module(target)
    found = _attribute(module, target, attribute) if attribute else _only_worker(module, target)
    if factory:
        found = _made(found, spec)
    worker = worker_of(found, spec, interface, service)
    if not worker.handlers:
        raise LoadError(f"{spec}: the worker '{worker.name}' has no handlers")
    return worker


def version_of(worker: Worker, *, flag: str | None = None, app_dir: str = ".") -> str:
    """The version of the code that is on disk: the flag, a file VERSION in the app dir, Worker(version=...),
    "unversioned", the first that is there. LoadError if it cannot be read or shown.
    """
    version = flag or _version_file(app_dir) or worker.version or "unversioned"
    try:
        return check_version(version)
    except ValueError as error:
        raise LoadError(str(error)) from None


def split_spec(spec: str) -> tuple[str, str]:
    """("shop.orders", "worker") of "shop.orders:worker"; the attribute is empty if none is named."""
    target, _, attribute = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if not target or (attribute and not all(part.isidentifier() for part in attribute.split("."))):
        raise LoadError(f"{spec!r} is not an application: module:attribute or file.py:attribute")
    return target, attribute


def names_a_file(target: str) -> bool:
    return target.endswith(".py") or os.sep in target


def _put_first(folder: str) -> None:
    # As typed, not resolved: deploy scripts swap a symlink in this path, and the next process must follow it.
    folder = os.path.abspath(folder)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    importlib.invalidate_caches()


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Turn whatever the application's own code raises into a LoadError."""
    app.being_loaded = True
    try:
        yield
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        frames = user_frames(error.__traceback__)
        if frames is error.__traceback__ and isinstance(error, SyntaxError):
            frames = None  # of the file that was named: it ran nothing, and says itself where it is wrong
        text = "".join(traceback.format_exception(type(error), error, frames))
        cause = f"{what}: {type(error).__name__}: {text_of(error)}"
        raise LoadError(cause, details={"traceback_text": text}) from error
    finally:
        app.being_loaded = False


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise LoadError(f"{name!r} is not the name of a module")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # That of a module which it imports is the application's own failure, and keeps its traceback.
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            hint = _hint_for(error.name)
            raise LoadError(f"there is no module '{error.name}' in {sys.path[0]}{hint}") from None
        raise


def _hint_for(missing: str) -> str:
    try:
        beside = [entry.removesuffix(".py") for entry in os.listdir(sys.path[0])]
    except OSError as error:
        return f": {error.strerror}"
    return did_you_mean(missing, [name for name in beside if name.isidentifier()])


def _import_file(path: str) -> ModuleType:
    typed, path = path, os.path.abspath(path)
    if os.path.isdir(path):
        raise LoadError(f"{path} is a directory: a file or a module expected")
    if not os.path.isfile(path):
        raise LoadError(f"there is no file {path}")
    name = _module_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == path:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as import does: dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ImportError) and (module_name := _as_module(error, path)):
            error.msg = f"{error}; the file belongs to a package: say {module_name} in place of {typed}"
        raise
    return module


def _as_module(error: ImportError, path: str) -> str:
    """What finds a file that imports its own package, which its folder alone does not have; "" for any other error."""
    folder, stem = os.path.split(path.removesuffix(".py"))
    parts = [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    by_name = isinstance(error, ModuleNotFoundError) and error.name == parts[0]
    if len(parts) == 1 or not (by_name or "attempted relative import with no known parent" in str(error)):
        return ""
    where = "" if folder == os.getcwd() else f" with --app-dir {folder}"
    return f"{'.'.join(parts).removesuffix('.__init__')}{where}"


def _module_name(path: str) -> str:
    """That of `import`, so that whoever imports the file finds the same module; never that of another one."""
    stem = os.path.basename(path).removesuffix(".py")
    taken = sys.modules.get(stem)
    is_free = taken is None or getattr(taken, "__file__", None) == path
    if stem.isidentifier() and is_free and stem not in sys.stdlib_module_names:
        return stem
    return f"rota_application_{stem}"


def _attribute(module: ModuleType, target: str, attribute: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = did_you_mean(part, [name for name in vars(module) if name[:2] != "__"])
            raise LoadError(f"{target} has no attribute '{attribute}'{hint}") from None
    return found


def _only_worker(module: ModuleType, target: str) -> Worker:
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Worker)}
    workers = dict(found.values())
    if len(workers) == 1:
        return next(iter(workers.values()))
    if not workers:
        others = [name for name in ("application", "app") if callable(getattr(module, name, None))]
        hint = f", such as {target}:{others[0]}" if others else f": {target}:NAME (of a WSGI or ASGI application, too)"
        raise LoadError(f"{target} has no rota.Worker at its top level; say what is to be served{hint}")
    names = ", ".join(f"{target}:{name}" for name in workers)
    raise LoadError(f"{target} has {len(workers)} rota.Workers; say which: {names}")


def _made(function: Any, spec: str) -> Any:
    kind = _no_factory(function)
    if kind:
        raise LoadError(
            f"--factory: {spec} {kind}; a factory is a function without parameters that returns the application. "
            "If this is the application itself, leave --factory out"
        )
    with _loading(f"{spec}() failed"):
        return function()


def _no_factory(found: Any) -> str:
    """What it is instead; "" when it may be a factory: a function that can be called without arguments."""
    if not callable(found):
        return f"is of type {type(found).__name__}"
    if iscoroutinefunction(found):
        return "is an async function"
    missing = arguments_needed(found)
    return f"needs arguments ({', '.join(missing)})" if missing else ""


def _version_file(app_dir: str) -> str:
    """Its first line; empty if there is no such file or nothing in it."""
    path = os.path.join(app_dir, "VERSION")
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline(4096).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from None
