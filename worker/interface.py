"""Which interface an application has, and the `Worker` that serves it."""

from __future__ import annotations

import os
import re
from inspect import isasyncgenfunction, isclass, signature
from typing import Any

from ..common.errors import LoadError
from ..common.limits import NAME_MAX
from ..common.names import valid_name
from .app import Worker, is_async

DEV = "ROTA_DEV"  # the variable that turns on what dev.py does
AUTO, ROTA, WSGI, ASGI = "auto", "rota", "wsgi", "asgi"

_INSIST = "--interface wsgi or --interface asgi insists"
_MANY = 99


def worker_of(found: Any, spec: str, interface: str, service: str) -> Worker:
    """The Worker itself, or one that serves a WSGI or ASGI application under the name `service`, else that of its
    module. LoadError for what is neither, and for what is not of the `interface` that the user insists on.
    """
    if isinstance(found, Worker):
        if interface not in (AUTO, ROTA):
            raise LoadError(f"{spec} is a rota.Worker, and no {interface.upper()} application: leave --interface away")
        return found
    if not callable(found) or interface == ROTA:
        kinds = "a rota.Worker" if interface == ROTA else "a rota.Worker, a WSGI or an ASGI application"
        raise LoadError(f"rota serves {kinds}; {spec} is {_a(found)}{_factory_hint(found)}")
    if interface == AUTO:
        interface = _interface_of(found, spec)
    name = service or service_name(spec)
    if os.environ.get(DEV):
        from . import dev

        found = dev.asgi(found) if interface == ASGI else dev.wsgi(found)
    if interface == ASGI:
        from .asgi import worker as asgi_worker  # asyncio takes longer to load than all of rota

        return asgi_worker(found, name)
    from .wsgi import worker as wsgi_worker

    return wsgi_worker(found, name)


def service_name(spec: str) -> str:
    """The name of an application that has none: that of its module or file, `shop-wsgi` of `shop.wsgi:application`."""
    target = spec.rpartition(":")[0] or spec
    stem = target.rstrip("/").rpartition("/")[2].removesuffix(".py")
    name = re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:NAME_MAX]
    if not valid_name(name):
        raise LoadError(f"{spec} gives no name for the service; say one: --service NAME")
    return name


def _interface_of(found: Any, spec: str) -> str:
    least, most = _takes(found, spec)
    asynchronous = is_async(found) or (isclass(found) and hasattr(found, "__await__"))
    is_body = hasattr(found, "__iter__") if isclass(found) else not isasyncgenfunction(found)
    if asynchronous and least <= 3 <= most:
        return ASGI
    if not asynchronous and least == 2 and is_body:
        return WSGI
    if _is_double_callable(found, least, asynchronous):
        raise LoadError(
            f"{spec} is called with the scope alone, as ASGI 2 applications are; rota serves ASGI 3: "
            "async def application(scope, receive, send)"
        )
    kind = "a class" if isclass(found) else "an async callable" if asynchronous else "a callable"
    hint = " (a class: its objects have __iter__ or __await__)" if isclass(found) else ""
    maker = _factory_hint(found) if least == 0 else ""
    raise LoadError(
        f"{spec} is {kind} that takes {_count(least, most)}: a WSGI application takes 2 and is not async, "
        f"an ASGI application takes 3 and is{hint}; {_INSIST}{maker}"
    )


def _takes(found: Any, spec: str) -> tuple[int, int]:
    """Least and most positional arguments. A class counts with those of its constructor: it may be an application."""
    try:
        parameters = signature(found).parameters.values()
    except (TypeError, ValueError):
        raise LoadError(f"{spec} is {_a(found)} whose parameters cannot be read; {_INSIST}") from None
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    needed = [each for each in parameters if each.default is each.empty and each.kind is each.KEYWORD_ONLY]
    if needed:
        raise LoadError(f"{spec} needs an argument '{needed[0].name}' by name, which no WSGI or ASGI application does")
    is_open = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return sum(each.default is each.empty for each in places), _MANY if is_open else len(places)


def _is_double_callable(found: Any, least: int, asynchronous: bool) -> bool:
    if asynchronous or least != 1:
        return False
    if isclass(found):
        return is_async(found.__call__)
    return next(iter(signature(found).parameters)) == "scope"


def _factory_hint(found: Any) -> str:
    is_maker = isclass(found) or hasattr(found, "__code__")
    return "; if it makes one, say --factory" if is_maker else ""


def _count(least: int, most: int) -> str:
    if least == most:
        return "1 parameter" if most == 1 else f"{most} parameters"
    return f"{least} or more parameters" if most == _MANY else f"{least} to {most} parameters"


def _a(found: Any) -> str:
    if isclass(found):
        return f"the class {found.__qualname__}"
    return f"a {type(found).__module__}.{type(found).__qualname__}".replace("a builtins.", "a ")
