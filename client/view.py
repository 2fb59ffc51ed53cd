"""What all calls of one view of a client have in common: time-out, keys, headers; for `Client` and `AsyncClient`."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, NamedTuple, Self

from msgpack import packb

from ..common.limits import CLIENT_TIMEOUT_S, META_MAX, TARGET_MAX, TIMEOUT_MAX_S
from ..common.wire import KEYED, META, PINNED
from .calls import Address
from .proxy import Service

ADDRESSES_MAX = 1024  # targets whose heads are remembered; names may come from outside (a gateway's paths)


class Options(NamedTuple):
    """`timeout` in seconds. Keys are texts; "" means none."""

    timeout: float = CLIENT_TIMEOUT_S
    idempotency_key: str = ""
    session: str = ""
    headers: Mapping[str, str] = {}

    def meta(self) -> bytes:
        """The map at the end of the head; empty when there is nothing to say. Raises ValueError, TypeError."""
        fields = {"k": self.idempotency_key, "s": self.session}
        for what, value in [*fields.items(), *self.headers.items()]:
            if not isinstance(what, str) or not isinstance(value, str):
                raise TypeError(f"options: text expected, not {value!r}")
        said: dict[str, Any] = {key: value for key, value in fields.items() if value}
        if self.headers:
            said["h"] = dict(self.headers)
        packed: bytes = packb(said) if said else b""
        if len(packed) > META_MAX:
            raise ValueError(f"options: keys and headers are {len(packed)} bytes, more than {META_MAX}")
        return packed


class View:
    """A client as seen through some options; views are cheap and share one connection."""

    def __init__(self) -> None:
        self._options = Options()
        self._meta = b""
        self._addresses: dict[str, Address] = {}

    @property
    def keyed(self) -> bool:
        """Whether its calls have an idempotency key: they go in whole, and so do their answers."""
        return self._options.idempotency_key != ""

    def options(
        self,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        session: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """The same client with other options for the calls made through it; what is not named stays as it is.

        timeout: seconds for each call (30 unless set). idempotency_key: calls of one key are one call: a repeated one
        gets the answer of the first. session: calls of one session to a service go to the same process while it is
        there, and the handler finds its name in the context. headers: texts that are there, too. Raises ValueError or
        TypeError for what cannot be one.
        """
        named: dict[str, Any] = {
            "timeout": timeout,
            "idempotency_key": idempotency_key,
            "session": session,
            "headers": None if headers is None else dict(headers),  # ours: who gave it may change it
        }
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
            raise TypeError(f"timeout is {timeout!r}: a number of seconds expected")
        if timeout is not None and not 0 < timeout <= TIMEOUT_MAX_S:
            raise ValueError(f"timeout is {timeout!r}: seconds expected, more than 0 and at most {TIMEOUT_MAX_S:.0f}")
        view = copy(self)
        view._options = self._options._replace(**{key: value for key, value in named.items() if value is not None})
        view._meta = view._options.meta()
        view._addresses = {}
        return view

    def service(self, name: str) -> Service:
        """`client.service("orders").quote(symbol="X")` is `client.call("orders.quote", symbol="X")`."""
        return Service(self.call, name)

    def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _new_address(self, target: str) -> Address:
        """To be looked for in `_addresses` before."""
        encoded = target.encode() if isinstance(target, str) else b""
        if not 0 < len(encoded) <= TARGET_MAX or "." not in target:
            raise ValueError(
                f"{str(target)[:80]!r} is no target: 'service.handler' expected, {TARGET_MAX} bytes at most"
            )
        if len(self._addresses) >= ADDRESSES_MAX:
            self._addresses.clear()
        options = self._options
        flags = META * bool(self._meta) | KEYED * bool(options.idempotency_key) | PINNED * bool(options.session)
        address = (encoded + self._meta, len(encoded), flags)
        self._addresses[target] = address
        return address


def as_arguments(item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One item of `map()`: a mapping holds named arguments, a tuple positional ones, anything else is the only one."""
    if isinstance(item, Mapping):
        return (), dict(item)
    return (item if type(item) is tuple else (item,)), {}
