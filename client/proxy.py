"""A service as an object: its handlers are its methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


class Service:
    """`service.quote(symbol="X")`; with an AsyncClient, `await service.quote(symbol="X")`."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        """`call`: of the client, to which handlers are named."""
        self._call = call
        self._name = name

    def __getattr__(self, handler: str) -> Callable[..., Any]:
        if handler.startswith("__"):  # what copy, pickle and inspect ask for
            raise AttributeError(handler)
        return partial(self._call, f"{self._name}.{handler}")

    def __repr__(self) -> str:
        return f"<service {self._name}>"
