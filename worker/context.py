"""`Context`: what a handler may know of the request that it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

    from .core.deliveries import Delivery


class Context:
    """What a handler may know of its request, for handlers that have a parameter `ctx: rota.Context`.

        @orders.handler
        def book(ctx: rota.Context, basket: list) -> str:
            ctx.log.info("booking %s, %.1f s are left", basket, ctx.remaining())

    Tests may make one: `rota.Context(request_id="1", session="user-42")`.

    service, handler   names, `orders` and `quote`
    version            of the application, as this process reported it
    request_id         the same in every attempt, and in the caller's own errors and logs
    attempt            1 for the first run of this request
    idempotency_key    of the caller, or None
    session            the caller's session, all calls of which come to this process while it is there; or None
    headers            those of the caller, str → str, with `traceparent` if it sent one
    """

    __slots__ = (
        "service",
        "handler",
        "version",
        "request_id",
        "attempt",
        "idempotency_key",
        "session",
        "headers",
        "stream",
        "answer",
        "_deadline",
        "_log",
    )

    def __init__(
        self,
        *,
        service: str = "",
        handler: str = "",
        version: str = "unversioned",
        request_id: str = "",
        deadline: float | None = None,
        attempt: int = 1,
        idempotency_key: str | None = None,
        session: str | None = None,
        headers: Mapping[str, str] | None = None,
        stream: Any = None,
    ) -> None:
        """`deadline`: a point on the monotonic clock of this process; None: there is none."""
        self.service = service
        self.handler = handler
        self.version = version
        self.request_id = request_id
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.session = session
        self.headers: Mapping[str, str] = headers or {}
        self.stream = stream  # worker/streams.py; None: its caller takes none. Not public yet, it may change
        self.answer: Callable[[Any], None] | None = None  # for an async handler that goes on after it; not public yet
        self._deadline = deadline
        self._log: LoggerAdapter[Logger] | None = None

    def remaining(self) -> float:
        """Seconds until the caller stops waiting; 0.0 when it already has, inf without a deadline."""
        return float("inf") if self._deadline is None else max(0.0, self._deadline - monotonic())

    @property
    def log(self) -> LoggerAdapter[Logger]:
        """The logger `rota.SERVICE`; its records carry request_id, service, handler and attempt."""
        if self._log is None:
            from logging import LoggerAdapter, getLogger

            fields = ("request_id", "service", "handler", "attempt")
            extra = {field: getattr(self, field) for field in fields}
            self._log = LoggerAdapter(getLogger(f"rota.{self.service}"), extra)
        return self._log

    def __repr__(self) -> str:
        return f"<rota.Context {self.service}.{self.handler} request {self.request_id}>"


class Delivered(Context):
    """The context of a delivery. What few handlers ask for is read only when one does: all at once would cost 3 µs."""

    __slots__ = ("_delivery", "_stream_of")

    def __init__(
        self,
        delivery: Delivery,
        service: str,
        version: str,
        stream_of: Callable[[Any], Any],
        answer: Callable[[Any], None] | None,
    ) -> None:
        self.service = service
        self.handler = delivery.handler
        self.version = version
        self.answer = answer
        self._log = None
        self._delivery = delivery
        self._stream_of = stream_of

    def __getattr__(self, name: str) -> Any:
        """Called for a slot that is still empty."""
        if name not in _LATER:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        delivery = self._delivery
        value = self._stream_of(delivery) if name == "stream" else getattr(delivery, name.removeprefix("_"))
        setattr(self, name, value)
        return value


_LATER = ("stream", "request_id", "attempt", "idempotency_key", "session", "headers", "_deadline")
