"""The error tree: what users catch, what travels, what a script sees."""

import pickle
import re
import traceback
from pathlib import Path

import pytest

import rota
from rota.common import errors, exits

ALL = sorted((getattr(rota, name) for name in rota._ERRORS), key=lambda kind: kind.code)
PROTOCOL = Path(rota.__file__).parent / "docs" / "PROTOCOL.md"


def test_every_error_is_a_rota_error_with_a_code_of_its_own() -> None:
    assert all(issubclass(kind, rota.Error) for kind in ALL)
    assert len({kind.code for kind in ALL}) == len(ALL)
    assert not {errors.OK, errors.NOT_STARTED} & {kind.code for kind in ALL}


def test_the_face_names_every_error() -> None:
    assert set(ALL) == set(errors._BY_CODE.values())


def test_errors_are_what_the_standard_library_calls_them_too() -> None:
    assert issubclass(rota.Timeout, TimeoutError)
    assert issubclass(rota.Unavailable, ConnectionError)
    assert issubclass(rota.Overloaded, rota.Unavailable) and issubclass(rota.NoService, rota.Unavailable)
    assert issubclass(rota.BindError, TypeError)


def test_codes_are_those_of_the_protocol() -> None:
    names = {
        "remote error": rota.RemoteError,
        "bad call": rota.BindError,
        "payload too large": rota.PayloadTooLarge,
        "cancelled": rota.Cancelled,
        "timeout": rota.Timeout,
        "overloaded": rota.Overloaded,
        "no service": rota.NoService,
        "not executed": rota.NotExecuted,
        "maybe executed": rota.MaybeExecuted,
        "denied": rota.Denied,
        "protocol error": rota.ProtocolError,
    }
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", PROTOCOL.read_text(), re.MULTILINE)
    written = {name: int(code) for code, name in rows if name in names}
    assert written == {name: kind.code for name, kind in names.items()}


@pytest.mark.parametrize("kind", ALL)
def test_a_fault_becomes_the_error_it_was(kind: type[errors.Error]) -> None:
    if kind is rota.RemoteError:
        return
    error = errors.fault(kind.code, "the queue is full", 250, {"limit": 3})
    assert type(error) is kind
    assert (error.cause, error.retry_after, error.details) == ("the queue is full", 0.25, {"limit": 3})


def test_a_remote_error_keeps_type_message_and_traceback() -> None:
    details = {"type": "shop.NoStock", "message": "sold out", "traceback_text": "Traceback…"}
    error = errors.fault(rota.RemoteError.code, "", 0, details)
    assert isinstance(error, rota.RemoteError)
    assert (error.type, error.message, error.traceback_text) == tuple(details.values())
    assert str(error) == "shop.NoStock: sold out"
    assert "in the process:\nTraceback…" in "".join(traceback.format_exception(error))


def test_a_code_of_a_newer_peer_is_an_error_all_the_same() -> None:
    error = errors.fault(999, "something new")
    assert type(error) is rota.Error and error.details == {"code": 999}


@pytest.mark.parametrize("kind", ALL)
def test_errors_can_be_pickled(kind: type[errors.Error]) -> None:
    error = errors.fault(kind.code, "why", 1500, {"type": "T", "message": "m", "traceback_text": "t"})
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and vars(copy) == vars(error) and str(copy) == str(error)


def test_an_error_says_why_and_when_to_try_again() -> None:
    assert str(rota.Overloaded("1000 requests are queued", retry_after=0.5)) == (
        "1000 requests are queued (retry after 0.5 s)"
    )
    assert "safe to send again" in str(rota.NotExecuted())
    assert repr(rota.Denied("no")) == "Denied('no')"


def test_exit_codes_tell_errors_apart() -> None:
    assert exits.of(rota.NoService("")) == exits.of(rota.NotFound("")) == exits.NOT_FOUND
    assert exits.of(rota.Unavailable("")) == exits.UNREACHABLE
    assert exits.of(rota.Overloaded("")) == exits.of(rota.Timeout("")) == exits.FAILED
    assert exits.of(rota.LoadError("")) == exits.LOAD_FAILED
    assert exits.of(KeyError("x")) == exits.FAILED


@pytest.mark.parametrize(
    ("number", "kind"),
    [(4, rota.NotFound), (5, rota.Refused), (69, rota.Unavailable), (75, rota.Timeout), (1, rota.Error)],
)
def test_the_exit_code_of_a_verb_becomes_an_error(number: int, kind: type[errors.Error]) -> None:
    assert type(exits.error(number, "why")) is kind
