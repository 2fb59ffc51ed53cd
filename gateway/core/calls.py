"""Calls in JSON: `POST /-/call/SERVICE/HANDLER` (docs/HTTP.md, "Calls"). Pure."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from ...common import errors
from ...common.limits import NAME_MAX
from ...common.names import OF_HTTP
from . import forms
from .answers import Answer, fault_of, headers
from .forms import Fault
from .head import Head
from .requests import key_of, trace_of
from .routes import Route

PREFIX = b"/-/call/"
BYTES = "$bytes"  # the only name of the object that stands for bytes
MESSAGE_MAX = 4096  # characters of what an application's exception says

# No handler has a dot: what stands before the last one of a target would be another service.
_PATH = re.compile(rb"/-/call/([^/?]{1,%d})/([^/?.]{1,%d})" % (NAME_MAX, NAME_MAX))
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")


class Refused(Exception):
    """It is no call. `allow`: the methods that there are instead."""

    def __init__(self, status: int, sentence: str, allow: bytes = b"") -> None:
        super().__init__(sentence)
        self.fault = Fault(status, sentence)
        self.allow = allow


class Unrepresentable(Exception):
    """A result that JSON has no word for; says where."""


class Asked(NamedTuple):
    """`timeout`: seconds; None: not said."""

    route: Route
    target: str
    args: list[Any]
    kwargs: dict[str, Any]
    key: str
    headers: dict[str, str]
    timeout: float | None


def asked(head: Head, body: bytes, services: Mapping[str, Route]) -> Asked:
    """`services`: those that may be called. Raises Refused."""
    found = _PATH.fullmatch(head.target.partition(b"?")[0])
    service, handler = (part.decode("latin-1") for part in found.groups()) if found else ("", "")
    route = services.get(service)
    if route is None or handler in OF_HTTP:
        raise Refused(404, "There is nothing here that can be called.")
    if head.method != "POST":
        raise Refused(405, "A handler is called with POST.", b"POST")
    if b"?" in head.target:
        raise Refused(400, "The arguments of a call are its body: there is no query.")
    if _content_type(head) != b"application/json":
        raise Refused(415, "The body of a call is JSON: Content-Type: application/json.")
    args, kwargs = _arguments(body)
    return Asked(route, f"{service}.{handler}", args, kwargs, _key(head), trace_of(head.headers), _timeout(head))


def _content_type(head: Head) -> bytes:
    found = [value for name, value in head.headers if name == b"content-type"]
    return found[0].partition(b";")[0].strip().lower() if len(found) == 1 else b""


def _key(head: Head) -> str:
    key = key_of(head.headers)
    if not key and any(name == b"idempotency-key" for name, _ in head.headers):
        raise Refused(400, "An Idempotency-Key is one field of 1 to 255 visible characters.")
    return key


def _timeout(head: Head) -> float | None:
    found = [value for name, value in head.headers if name == b"x-rota-timeout"]
    if not found:
        return None
    seconds = float(found[0]) if len(found) == 1 and _SECONDS.fullmatch(found[0]) else 0.0
    if seconds < 0.001:
        raise Refused(400, "X-Rota-Timeout is a number of seconds from 0.001, such as 2.5.")
    return seconds


# ---- arguments ------------------------------------------------------------------------------------------------------


def _arguments(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    try:
        value = _JSON.decode(body.decode())
    except UnicodeDecodeError:
        raise Refused(400, "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise Refused(400, f"The body is not JSON: {error.msg}, at character {error.pos}.") from None
    except RecursionError:
        raise Refused(400, "The body is nested too deeply.") from None
    except ValueError as error:  # of ours, and of int() for thousands of digits
        raise Refused(400, f"The body cannot be read: {error}.") from None
    if type(value) is dict:
        return [], value
    if type(value) is list:
        return value, {}
    raise Refused(400, "The body is an object of named arguments, or an array of them in their order.")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return _bytes(found) if BYTES in found else found


def _bytes(found: dict[str, Any]) -> bytes:
    text = found[BYTES]
    if len(found) != 1 or type(text) is not str:
        raise ValueError(f'bytes are {{"{BYTES}": "base64"}}, and nothing beside')
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"what {BYTES} has is not base64") from None


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError("a number is beyond what a double holds")
    return value


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


# ---- answers --------------------------------------------------------------------------------------------------------


def answer(result: object, request_id: str) -> Answer:
    """Raises Unrepresentable."""
    try:
        text = json.dumps(_plain(result, None), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise Unrepresentable("it has NaN or infinity") from None
    except RecursionError:
        raise Unrepresentable("it is nested too deeply") from None
    fields = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return Answer(200, [*fields, (b"x-request-id", request_id.encode())], text.encode() + b"\n")


def of_error(error: BaseException, request_id: str) -> Answer:
    """Problem details with the class of the error; of what the handler raised its type and message, but no more."""
    fault = fault_of(error)
    if isinstance(error, errors.BindError):
        fault = Fault(422, error.cause or "The arguments do not fit the handler; it was not run.")
    elif isinstance(error, errors.NoService) and error.details.get("unknown") == "handler":
        fault = Fault(404, "The service has no such handler.")
    elif isinstance(error, Unrepresentable):
        fault = Fault(502, f"The call was made, but its result is not JSON: {error}.")
    more: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, errors.RemoteError):
        more["exception"] = {"type": error.type, "message": error.message[:MESSAGE_MAX]}
    return _problem(fault, request_id, more)


def of_refusal(refused: Refused, request_id: str) -> Answer:
    made = _problem(refused.fault, request_id, {})
    if refused.allow:
        made.headers.append((b"allow", refused.allow))
    return made


def _problem(fault: Fault, request_id: str, more: dict[str, object]) -> Answer:
    fields = forms.problem(fault, request_id) | more
    if fault.seconds:
        fields["retry_after"] = fault.seconds
    made = headers(fault, forms.MIME[forms.PROBLEM], request_id)
    return Answer(fault.status, made, json.dumps(fields).encode() + b"\n")


def _plain(value: Any, at: _Place | None) -> Any:
    """The value as json.dumps may have it. What is so already is known by its types, at the speed of C."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is bytes:
        return {BYTES: b64encode(value).decode()}
    if kind is list or kind is tuple:
        if _SCALARS.issuperset(map(type, value)):
            return value
        return [_plain(item, (at, place)) for place, item in enumerate(value)]
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)) or BYTES in value:
            name = next(name for name in value if type(name) is not str or name == BYTES)
            raise Unrepresentable(f"{_path(at)} has the key {ascii(name)[:60]}")
        if _SCALARS.issuperset(map(type, value.values())):
            return value
        return {name: _plain(item, (at, name)) for name, item in value.items()}
    raise Unrepresentable(f"{_path(at)} is a {kind.__name__}")


def _path(at: _Place | None) -> str:
    steps: list[str] = []
    while at is not None:
        at, step = at
        steps.append(f".{step}" if type(step) is str else f"[{step}]")
    return "".join(["result", *reversed(steps)])[:200]


_Place = tuple[Any, str | int]  # the place of what it is in (None: nothing), and the step from there
_SCALARS = frozenset([str, int, float, bool, type(None)])
_TEXT = frozenset([str])
