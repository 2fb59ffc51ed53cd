"""One delivery in, one outcome out, in the calling thread. Knows nothing of sockets.

`async_hosting.AsyncHost` does the same on an event loop, for applications with an async handler.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from ..common.body import Packed, encode_error, pack
from ..common.errors import OK, Error, LoadError, NoService, PayloadTooLarge, RemoteError
from ..common.limits import BODY_MAX
from ..common.names import unknown
from .app import Handler, Worker
from .context import Delivered
from .tracebacks import name_of, text_of, traceback_text

if TYPE_CHECKING:
    from .core.deliveries import Delivery

MESSAGE_MAX = 8 * 1024  # characters of an exception's text
FAILURES = (Exception, SystemExit)  # of a hook: where a process ends is not for it to say


class Outcome(NamedTuple):
    """`code`: errors.OK, or the code of the error whose body `body` is. `elapsed_us` includes decoding and encoding."""

    code: int
    body: Packed
    elapsed_us: int


_outcome = tuple.__new__  # a quarter of what the class itself takes, which has a function of its own for it


class SyncHost:
    """Runs handlers that are not async."""

    def __init__(
        self,
        worker: Worker,
        *,
        version: str = "unversioned",
        stream_of: Callable[[Any], Any] = lambda delivery: None,
    ) -> None:
        """`stream_of`: what a delivery's context has as its stream, None if its caller takes none."""
        self.worker = worker
        self._stream_of = stream_of
        self.version = version
        self.body_max = BODY_MAX  # bytes of one result; the master says how many

    def start_up(self) -> None:
        """Run the start hooks. LoadError, with the traceback, if one raises."""
        for hook in self.worker.start_hooks:
            try:
                hook()
            except LoadError:
                raise  # it has its own sentence
            except FAILURES as error:
                raise hook_failed(hook, error) from error

    def run(self, delivery: Delivery) -> Outcome:
        """Run a delivery. Never raises: every delivery has an outcome, even that of a handler that calls sys.exit()."""
        begun = perf_counter_ns()
        handler = self.worker.handlers.get(delivery.handler)
        if handler is None:
            # A delivery without a handler is a health check of the master: what does the application say of itself?
            return self.unknown(delivery, begun) if delivery.handler else examined(self.check_health(), begun)
        try:
            args, kwargs = self.bind(handler, delivery)
        except Error as error:
            return failed(error, begun)
        try:
            result = handler.function(*args, **kwargs)
        except BaseException as error:
            return failed(remote_error(error), begun)
        return self.replied(handler, result, begun)

    def check_health(self) -> str:
        """Empty if the process is well, else the reason."""
        hook = self.worker.health_hook
        if hook is None:
            return ""
        try:
            return verdict(hook())
        except FAILURES as error:
            return ailment(error)

    def shut_down(self) -> None:
        """Run the stop hooks, the last first. One that raises is reported on stderr and keeps none of the others."""
        for hook in reversed(self.worker.stop_hooks):
            try:
                hook()
            except FAILURES:
                traceback.print_exc()

    def unknown(self, delivery: Delivery, begun: int) -> Outcome:
        """The outcome of a call for a handler that is not here."""
        service = self.worker.name
        names = [f"{service}.{name}" for name in self.worker.handlers]
        return failed(NoService(unknown("handler", f"{service}.{delivery.handler}", names)), begun)

    def bind(
        self, handler: Handler, delivery: Delivery, answer: Callable[[Any], None] | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments; `answer` is for its context. BindError or ProtocolError if the call is at fault."""
        binding, context = handler.binding, None
        if binding.context is not None:
            context = Delivered(delivery, self.worker.name, self.version, self._stream_of, answer)
        return binding.read(delivery.body, context)

    def replied(self, handler: Handler, result: Any, begun: int) -> Outcome:
        """The outcome of a handler that returned."""
        try:
            body = handler.binding.write(result)
        except TypeError as error:
            return failed(RemoteError("TypeError", f"{handler.binding.name}: {error}"), begun)
        if len(body) > self.body_max:
            return failed(self._too_large(handler, len(body)), begun)
        return _outcome(Outcome, (OK, body, (perf_counter_ns() - begun) // 1000))

    def _too_large(self, handler: Handler, size: int) -> PayloadTooLarge:
        limit = self.body_max
        return PayloadTooLarge(
            f"{handler.binding.name}: its result has {size:,} bytes, {limit:,} are allowed (master.max_message)",
            details={"size": size, "limit": limit, "what": "result"},
        )


def failed(error: Error, begun: int) -> Outcome:
    """The outcome for an error; `begun` is a reading of perf_counter_ns."""
    return Outcome(error.code, encode_error(error), (perf_counter_ns() - begun) // 1000)


def examined(text: str, begun: int) -> Outcome:
    """The outcome of a health check: the text that the probe found, empty if all is well."""
    return Outcome(OK, pack(text), (perf_counter_ns() - begun) // 1000)


def remote_error(error: BaseException) -> RemoteError:
    """What the caller is told of an exception of a handler. Never fails."""
    message = text_of(error)
    if isinstance(error, SystemExit):
        message = f"the handler tried to end the process with status {message or '0'}"
    return RemoteError(name_of(error), message[:MESSAGE_MAX], traceback_text(error))


def hook_failed(hook: Callable[[], Any], error: BaseException) -> LoadError:
    name = getattr(hook, "__name__", repr(hook))
    cause = f"on_start function {name} failed: {type(error).__name__}: {text_of(error)}"
    return LoadError(cause, details={"traceback_text": traceback_text(error)})


def verdict(answer: object) -> str:
    """A health probe that returns False is a no; one that returns nothing has found nothing wrong."""
    return "" if answer is None or answer else f"the health probe returned {answer!r}"


def ailment(error: BaseException) -> str:
    return f"the health probe raised {type(error).__name__}: {text_of(error)}"[:MESSAGE_MAX]
