"""`Worker`: the application as its author writes it, a named set of handlers and hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ..common.limits import HANDLERS_MAX, TIMEOUT_MAX_S
from ..common.names import check_name
from .binding import Binding

if TYPE_CHECKING:
    from .background import Background

Function = TypeVar("Function", bound=Callable[..., Any])
Idempotent = Literal[True, False, "key"]

_WIRE_WORDS: dict[Idempotent, str] = {False: "no", True: "yes", "key": "key"}

# True while `loading` imports a file: `run()` there would start a second agent instead of serving.
being_loaded = False


class Handler:
    """One named function of a service, with what was declared of it."""

    __slots__ = ("name", "function", "idempotent", "timeout", "binding", "is_async")

    def __init__(
        self,
        service: str,
        name: str,
        function: Callable[..., Any],
        idempotent: Idempotent,
        timeout: float | None,
    ) -> None:
        self.name = name
        self.function = function
        self.idempotent = idempotent
        self.timeout = timeout
        self.binding = Binding(f"{service}.{name}", function)
        self.is_async = is_async(function)


class Worker:
    """A service and its handlers.

        orders = rota.Worker("orders")

        @orders.handler(idempotent=True, timeout=5)
        def quote(symbol: str, quantity: int) -> dict: ...

    name      what callers put before the dot; ValueError if it is not made of letters, digits, `_`, `-`, `.`
    version   of the code, if neither the command line nor a file VERSION beside the application says it

    Decorated functions stay what they were: tests call them directly.
    """

    def __init__(self, name: str, *, version: str | None = None) -> None:
        self.name = check_name(name, "service")
        if version is not None and not isinstance(version, str):
            raise TypeError(f"{self.name}: version must be a text, not {version!r}")
        self.version = version
        self.handlers: dict[str, Handler] = {}
        self.start_hooks: list[Callable[[], Any]] = []
        self.stop_hooks: list[Callable[[], Any]] = []
        self.health_hook: Callable[[], Any] | None = None
        self.threads: int | None = None  # in which handlers run at once; None: they are not made for several

    @overload
    def handler(self, function: Function, /) -> Function: ...

    @overload
    def handler(
        self,
        /,
        *,
        idempotent: Idempotent = False,
        timeout: float | None = None,
        name: str | None = None,
    ) -> Callable[[Function], Function]: ...

    def handler(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        idempotent: Idempotent = False,
        timeout: float | None = None,
        name: str | None = None,
    ) -> Any:
        """Offer a function, sync or async, to callers; `@worker.handler` or `@worker.handler(...)`.

        idempotent   True: a started run that is lost may be run again. "key": only if the caller sent an idempotency
                     key, which the handler sees as `ctx.idempotency_key`.
        timeout      seconds a run may take before its process is killed (an async one is cancelled first);
                     None: the service's default
        name         for callers, if not that of the function

        Raises TypeError or ValueError here, not at the first call, for what cannot be served.
        """
        if function is None:
            return lambda function: self._add(function, idempotent, timeout, name)
        return self._add(function, idempotent, timeout, name)

    def on_start(self, function: Function) -> Function:
        """Run this function, sync or async, once in each process before the first request. If it raises, the process
        does not start. TypeError if it needs arguments.
        """
        return self._hook(self.start_hooks, function, "on_start")

    def on_stop(self, function: Function) -> Function:
        """Run this function, sync or async, once in each process after the last request; not in one that is killed.
        What was defined last runs first. TypeError if it needs arguments.
        """
        return self._hook(self.stop_hooks, function, "on_stop")

    def health(self, function: Function) -> Function:
        """Let the health checks of the service ask this function, sync or async, whether its process is well: False, or
        an exception, says no. ValueError if there is one already, TypeError if it needs arguments.
        """
        if self.health_hook is not None:
            raise ValueError(f"{self.name}: there is a health probe already")
        self.health_hook = _checked_hook(function, "health")
        return function

    @property
    def is_async(self) -> bool:
        """True if any handler or hook is async: such an application is served by an event loop."""
        hooks = [*self.start_hooks, *self.stop_hooks, self.health_hook]
        asynchronous = any(handler.is_async for handler in self.handlers.values())
        return asynchronous or any(hook is not None and is_async(hook) for hook in hooks)

    def interface(self) -> dict[str, Any]:
        """Service, version, handlers and their digest, as plain data."""
        handlers = {name: _described(handler) for name, handler in self.handlers.items()}
        return {
            "service": self.name,
            "version": self.version,
            "handlers": handlers,
            "digest": _digest(handlers),
        }

    def run(self, **options: Any) -> None:
        """Serve from this file until told to stop: `rota slave` on it.

        options: master, name, processes, version, tags, python, state, app_dir, as its flags, and start_timeout,
        drain_deadline, stop_grace in seconds. Unlike `rota slave`, it looks for its master in ROTA_MASTER, too.

        Does not return: it exits as `rota slave` does. Raises RuntimeError if this worker is not at the top level of
        the file that is run, or if that file is being loaded as an application; ValueError for what is no address, or
        no value of its option; TypeError for what is no option.
        """
        if being_loaded:
            raise RuntimeError(
                f"{self.name}.run() was called while the file is being loaded as an application; "
                'put it under `if __name__ == "__main__":`'
            )
        from .run import run

        run(self, **options)

    def background(self, **options: Any) -> Background:
        """Serve from inside this process, on its own objects: `with orders.background(master=...) as node:`.

        options: master, name (without one: host and pid), version, tags, state, as the flags of `rota slave`, and
        drain_deadline in seconds. `node.wait_ready()` returns when it serves; the end of the block, or `node.close()`,
        drains it. Raises ValueError for what is no address, or no value of its option; LoadError if the version cannot
        be read.
        """
        from .background import Background

        return Background(self, **options)

    def __repr__(self) -> str:
        return f"<rota.Worker {self.name}: {', '.join(self.handlers) or 'no handlers'}>"

    def _add(self, function: Function, idempotent: Idempotent, timeout: float | None, name: str | None) -> Function:
        if not callable(function):
            raise TypeError(f"{self.name}: a handler must be a function, not {function!r}")
        name = _handler_name(self.name, function, name)
        if name in self.handlers:
            raise ValueError(f"{self.name}: there is a handler '{name}' already")
        if len(self.handlers) >= HANDLERS_MAX:
            raise ValueError(f"{self.name}: a service has at most {HANDLERS_MAX} handlers")
        _check_declared(f"{self.name}.{name}", function, idempotent, timeout)
        self.handlers[name] = Handler(self.name, name, function, idempotent, timeout)
        return function

    def _hook(self, hooks: list[Callable[[], Any]], function: Function, decorator: str) -> Function:
        hooks.append(_checked_hook(function, decorator))
        return function


def _handler_name(service: str, function: Callable[..., Any], name: str | None) -> str:
    name = getattr(function, "__name__", None) if name is None else name
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"{service}: a handler without a name of its own needs `name=`")
    if "." in name:  # `service.handler` is split at its last dot
        raise ValueError(f"{service}: handler {name!r}: the name of a handler has no dot")
    return check_name(name, "handler")


def _check_declared(name: str, function: Callable[..., Any], idempotent: object, timeout: object) -> None:
    if idempotent not in (True, False, "key"):
        raise ValueError(f"{name}: idempotent must be True, False or 'key', not {idempotent!r}")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"{name}: timeout must be a number of seconds, not {timeout!r}")
        if not 0.001 <= timeout <= TIMEOUT_MAX_S:
            raise ValueError(f"{name}: timeout must be from 0.001 to {TIMEOUT_MAX_S:.0f} s, not {timeout!r}")
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _GENERATORS:
        raise TypeError(f"{name}: a handler returns its result, it does not yield")


_GENERATORS = 0x20 | 0x200  # inspect.CO_GENERATOR | CO_ASYNC_GENERATOR


def _checked_hook(function: Any, decorator: str) -> Callable[[], Any]:
    if not callable(function):
        raise TypeError(f"@{decorator} takes a function, not {function!r}")
    if needed := arguments_needed(function):
        raise TypeError(f"@{decorator} functions are called without arguments, not {needed}")
    hook: Callable[[], Any] = function
    return hook


def arguments_needed(function: Callable[..., Any]) -> list[str]:
    """The names of those without a default; none of a builtin that does not tell."""
    from inspect import signature

    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def is_async(function: Any) -> bool:
    """Whether calling it gives an awaitable."""
    from inspect import iscoroutinefunction

    call = getattr(type(function), "__call__", None)  # noqa: B004 (an object with an async __call__)
    return iscoroutinefunction(function) or iscoroutinefunction(call)


def _described(handler: Handler) -> dict[str, Any]:
    return {
        "idempotent": _WIRE_WORDS[handler.idempotent],
        "timeout_ms": round(1000 * (handler.timeout or 0)),  # 0: the service's default
        "params": handler.binding.describe(),
    }


def _digest(handlers: dict[str, dict[str, Any]]) -> str:
    """What callers can notice: names, signatures, idempotency.

    Not the version and not the limits (an operator's matter that may differ between nodes), not what a handler returns
    (annotations of results come and go without a change for any caller), nor the order of definition.
    """
    from hashlib import sha256

    from msgpack import packb

    noticed = [(name, of["idempotent"], of["params"]) for name, of in sorted(handlers.items())]
    return sha256(packb(noticed)).hexdigest()[:16]
