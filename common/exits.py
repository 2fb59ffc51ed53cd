"""Exit codes of the command line, and of a verb's result. Scripts depend on them: never renumber."""

from __future__ import annotations

from . import errors

DONE = 0  # done, or already so
FAILED = 1  # tried and failed
USAGE = 2  # click's own number for a wrong command line
DEGRADED = 3  # `status --check`
NOT_FOUND = 4  # no such service, handler, node or condition
REFUSED = 5  # by a safety rule; --force may override it
UNREACHABLE = 69  # EX_UNAVAILABLE: no master answers
LOAD_FAILED = 70  # EX_SOFTWARE: the application failed to load
UNDER_WAY = 75  # EX_TEMPFAIL: --wait or a call timed out, the work may go on
DENIED = 77  # EX_NOPERM
BAD_CONFIG = 78  # EX_CONFIG
INTERRUPTED = 130  # 128 + SIGINT, as shells have it: Ctrl-C while waiting, the work goes on

# Read from the top: a subclass stands above its base.
_PAIRS: tuple[tuple[type[errors.Error], int], ...] = (
    (errors.NotFound, NOT_FOUND),
    (errors.NoService, NOT_FOUND),
    (errors.Refused, REFUSED),
    (errors.Overloaded, FAILED),  # a master answered
    (errors.Unavailable, UNREACHABLE),
    (errors.LoadError, LOAD_FAILED),
    (errors.Denied, DENIED),
    (errors.BindError, USAGE),
)


def of(error: BaseException) -> int:
    """The exit code of a command that this error has ended."""
    if isinstance(error, errors.NoService) and error.details.get("maintenance") is True:
        return FAILED  # there is one of this name; an operator has closed it for a while
    return next((number for kind, number in _PAIRS if isinstance(error, kind)), FAILED)


def error(number: int, cause: str) -> errors.Error:
    """The exception for a verb that ended with exit code `number` (not DONE), with that as its `exit_code`."""
    if number == FAILED:
        kind: type[errors.Error] = errors.Error
    elif number == UNDER_WAY:
        kind = errors.Timeout
    else:
        kind = next((kind for kind, of_kind in _PAIRS if of_kind == number), errors.Error)
    return coded(kind(cause), number)


def coded(error: errors.Error, number: int) -> errors.Error:
    """Operators' errors say what the command line would exit with."""
    error.exit_code = number
    return error
