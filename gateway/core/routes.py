"""Which service a request is for: the longest path prefix of its host wins, then that of any host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...common.settings import ServiceHttpSettings
from .affinity import Affinity

HOSTS_MAX = 1024  # spellings of Host that are remembered; they come from outside
SAFE = ("GET", "HEAD", "OPTIONS")  # of RFC 9110 §9.2.1, but TRACE, which nobody should answer
_ENDS = b"/?"  # what may follow a prefix: /shop is not the beginning of /shopping


class Route(NamedTuple):
    """`root`: the path that the route took, "" for none. `retried`: methods that may run again when they are lost."""

    service: str
    root: str
    retried: frozenset[str]
    keys: bool
    safe_handler: str
    handler: str
    socket_handler: str
    affinity: Affinity | None = None

    def target(self, method: str) -> str:
        """What a gateway calls for this method."""
        return self.safe_handler if method in self.retried else self.handler


_Table = list[tuple[bytes, Route]]


class Claimed(ValueError):
    """By two services: one route. `service`: the second of them."""

    def __init__(self, route: str, first: str, service: str) -> None:
        super().__init__(f"the route {route} is claimed by {first} and by {service}: take one away")
        self.service = service


class Routes:
    """`find` is given what came: any spelling of a host, with or without a port."""

    def __init__(self, routes: Iterable[tuple[str, Route]]) -> None:
        """Of (prefix as in the settings, route). Raises Claimed when two services claim the same."""
        self._hosts: dict[str, dict[bytes, Route]] = {}
        self._seen: dict[bytes, _Table] = {}
        for text, route in routes:
            host, prefix = _split(text)
            known = self._hosts.setdefault(host, {}).setdefault(prefix, route)
            if known.service != route.service:
                raise Claimed(text, known.service, route.service)

    def __bool__(self) -> bool:
        return bool(self._hosts)

    @property
    def services(self) -> list[str]:
        return sorted({route.service for table in self._hosts.values() for route in table.values()})

    def find(self, host: bytes, target: bytes) -> Route | None:
        for prefix, route in self._seen.get(host) or self._table(host):
            # "" takes all, and so does it for `OPTIONS *`
            if not prefix or (target.startswith(prefix) and (target[len(prefix) : len(prefix) + 1] or b"/") in _ENDS):
                return route
        return None

    def _table(self, host: bytes) -> _Table:
        if len(self._seen) >= HOSTS_MAX:
            self._seen.clear()
        self._seen[host] = table = _longest_first(self._hosts.get(_name(host), {}))
        table += _longest_first(self._hosts.get("", {}))
        return table


def routes(services: Mapping[str, ServiceHttpSettings], more: Iterable[tuple[str, str]] = ()) -> Routes:
    """Of the settings of all services, and more as (prefix, service). Raises Claimed, as `Routes` does."""
    said = [(text, name) for name, settings in services.items() for text in settings.routes or ()]
    return Routes(
        (text, route_to(name, text, services.get(name, ServiceHttpSettings()))) for text, name in [*said, *more]
    )


def route_to(service: str, text: str, settings: ServiceHttpSettings) -> Route:
    return Route(
        service,
        _split(text)[1].decode(),
        frozenset((*SAFE, *(settings.retry_methods or ()))),
        settings.keys,
        f"{service}.http-safe",
        f"{service}.http",
        f"{service}.websocket",
        Affinity.of(settings.affinity, settings.affinity_cookie),
    )


def _split(text: str) -> tuple[str, bytes]:
    """`api.example.com/v1/` is the host api.example.com and the prefix /v1."""
    host, slash, path = text.partition("/")
    return host.lower(), (slash + path).rstrip("/").encode()


def _name(host: bytes) -> str:
    """Without port and the dot of the root; `[::1]` keeps its brackets."""
    text = host.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    return (name if colon and (port.isdigit() or not port) and not name.endswith(":") else text).rstrip(".")


def _longest_first(table: Mapping[bytes, Route]) -> _Table:
    return sorted(table.items(), key=lambda entry: len(entry[0]), reverse=True)
