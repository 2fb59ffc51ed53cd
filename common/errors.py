"""Every error of rota on one screen: a sentence each, with its code on the wire beside it.

A *fault* is an error that travels: the code in the header of the answer, the rest as a map in the
body (`common/body.py`). Codes 0 to 12 are those of `docs/PROTOCOL.md`; none is ever renumbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OK = 0  # not an error
NOT_STARTED = 12  # a process to its master: "this delivery is fenced off, run it elsewhere"
BY_FLOOR, BY_FENCE = b"floor", b"fence"  # its body: what kept it from starting


class Error(Exception):
    """Something went wrong inside rota itself; every other error of rota derives from this one.

    `cause` is a sentence, `retry_after` the seconds after which another try makes sense (None:
    nobody knows), `details` what a program may want to look at (plain data, str keys).
    """

    code = 13
    exit_code: int  # of what a `rota.Admin` raises: what the command line would exit with

    def __init__(
        self,
        cause: str = "",
        *,
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.retry_after = retry_after
        self.details = dict(details or {})

    def __str__(self) -> str:
        text = self.cause or (type(self).__doc__ or "").partition("\n")[0]
        return text if self.retry_after is None else f"{text} (retry after {self.retry_after:g} s)"


class RemoteError(Error):
    """The handler raised; `type`, `message` and `traceback_text` are those of its exception."""

    code = 1

    def __init__(self, type: str = "Exception", message: str = "", traceback_text: str = "") -> None:
        details = {"type": type, "message": message, "traceback_text": traceback_text}
        super().__init__(f"{type}: {message}" if message else type, details=details)
        self.args = (type, message, traceback_text)  # what pickle calls __init__ with
        self.type = type
        self.message = message
        self.traceback_text = traceback_text
        if traceback_text:
            self.__notes__ = ["in the process:\n" + traceback_text.rstrip()]


class BindError(Error, TypeError):
    """The arguments do not fit the handler; it was not run."""

    code = 2


class PayloadTooLarge(Error):
    """Arguments or result exceed the largest message; `details` has `size` and `limit` in bytes."""

    code = 3


class Cancelled(Error):
    """The request was cancelled."""

    code = 4


class Timeout(Error, TimeoutError):
    """The deadline of the call passed; a handler that had started goes on. `details` has `started`: False where it is
    known that none had: the call waited for a process, or was never sent.
    """

    code = 5


class Unavailable(Error, ConnectionError):
    """No active master can be reached; nothing was run."""

    code = 14


class Overloaded(Unavailable):
    """The queue is full; nothing was run, try again after `retry_after`."""

    code = 6


class NoService(Unavailable):
    """No node offers this service or handler, or none that may be given work; nothing was run."""

    code = 7


class NotExecuted(Error):
    """The request was lost before its handler started: safe to send again."""

    code = 8


class Quarantined(NotExecuted):
    """Processes died of requests with this payload; nothing was run, and nothing will be until an operator says so."""

    code = 19


class MaybeExecuted(Error):
    """The handler had started and its outcome is lost: it may have run, wholly or in part."""

    code = 9


class Conflict(Error):
    """This idempotency key came with other arguments before; nothing was run for this call."""

    code = 20


class Denied(Error):
    """This peer may not do that."""

    code = 10


class ProtocolError(Error):
    """The other side sent what the protocol does not allow."""

    code = 11


class NotFound(Error):
    """There is no node, service or condition of this name; the cause has the nearest names."""

    code = 15


class Refused(Error):
    """A safety rule forbids the step; the cause names the rule and what stands in the way."""

    code = 16


class Incompatible(Error):
    """The two sides cannot work together; the cause names both versions or both interfaces."""

    code = 17


class LoadError(Error):
    """The application failed to load; `traceback_text` is its own traceback, or empty."""

    code = 18

    @property
    def traceback_text(self) -> str:
        return str(self.details.get("traceback_text", ""))


def _tree(root: type[Error]) -> Iterable[type[Error]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_BY_CODE = {kind.code: kind for kind in _tree(Error)}
for _kind in _BY_CODE.values():
    _kind.__module__ = "rota"  # tracebacks and pickles name what users import


def fault(code: int, cause: str, retry_after_ms: int = 0, details: Mapping[str, object] | None = None) -> Error:
    """The exception that a fault stands for. A code that only a newer peer knows: plain `Error`."""
    details = details or {}
    if code == RemoteError.code:
        fields = ("type", "message", "traceback_text")
        return RemoteError(*(str(details.get(field, "")) for field in fields))
    if code not in _BY_CODE:
        details = {**details, "code": code}
    retry_after = retry_after_ms / 1000 if retry_after_ms > 0 else None
    return _BY_CODE.get(code, Error)(cause, retry_after=retry_after, details=details)
