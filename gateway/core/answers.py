"""What a gateway itself answers: errors of calls as statuses, with a small body in the form that the client wants."""

from __future__ import annotations

from typing import NamedTuple

from ...common import errors
from . import forms
from .forms import Fault
from .pages import NONE, Pages
from .response import Unsendable

Headers = list[tuple[bytes, bytes]]

CLIENT_GONE = 499  # of the access log only, as nginx writes it: nobody is there to be answered
RETRY_AFTER_S = 1.0  # where nobody knows better: processes and masters are back within seconds


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


_UNAVAILABLE = Fault(503, "The service is not available right now; nothing was done. Try again shortly.")
# Read from the top: a subclass stands above its base. The sentences name no machine and no cause inside: that is in
# the log, under the request's id.
_FAULTS: tuple[tuple[type[BaseException], Fault], ...] = (
    (errors.Overloaded, Fault(503, "There are too many requests right now; nothing was done. Try again shortly.")),
    (errors.Unavailable, _UNAVAILABLE),
    (errors.Incompatible, _UNAVAILABLE),  # while one side is updated; nothing was sent
    (errors.Timeout, Fault(504, "The service did not answer in time; what you asked for may still be done.")),
    (errors.Quarantined, Fault(500, "Requests like this one end the service; it was not tried again.")),
    (errors.NotExecuted, Fault(502, "The request was lost before anything was done. Try again.")),
    (errors.MaybeExecuted, Fault(502, "The service failed while it worked on the request; it may have been done.")),
    (errors.RemoteError, Fault(500, "The service failed on this request.")),
    (Unsendable, Fault(500, "The service failed on this request.")),
    (errors.Conflict, Fault(422, "This Idempotency-Key came with another request before; nothing was done.")),
)
_NO_PROCESS = Fault(503, "No process was free in time; nothing was done. Try again shortly.", retry_after=RETRY_AFTER_S)
_OTHER = Fault(502, "The service gave no answer that can be passed on.")
_TOO_LARGE = Fault(413, "The request is too large; nothing was done.")
_ANSWER_TOO_LARGE = Fault(502, "The answer of the service is too large to be passed on.")
# Whoever went away is not answered: a call that was cancelled all the same was given up by a gateway that ends now.
_GIVEN_UP = Fault(502, "The gateway was stopped before the service had answered; it may have been done.")
_NO_HTTP = Fault(502, "The service does not answer HTTP requests; nothing was done.")
_MAINTENANCE = Fault(503, "The service is closed for maintenance; nothing was done. Try again later.", maintenance=True)


def of_error(error: BaseException, request_id: str, form: str, pages: Pages = NONE) -> Answer:
    """The answer that an error of a call stands for."""
    return made(fault_of(error), request_id, form, pages)


def fault_of(error: BaseException) -> Fault:
    fault = _fault(error)
    if not isinstance(error, errors.Error):
        return fault
    code = error.details.get("code")
    if fault.status == 503 and isinstance(error, errors.Unavailable | errors.Incompatible):
        # Trying again makes sense, and this is when.
        fault = fault._replace(retry_after=error.retry_after or RETRY_AFTER_S)
    return fault._replace(sentence=_told(error) or fault.sentence, code=code if isinstance(code, str) else "")


def made(fault: Fault, request_id: str, form: str, pages: Pages = NONE) -> Answer:
    """In this form, with the service's own page if it has one."""
    body = pages.body(form, fault, request_id)
    if body is None:
        body = forms.body(form, fault, request_id)
    return Answer(forms.status_in(form, fault.status), headers(fault, forms.MIME[form], request_id), body)


def headers(fault: Fault, content_type: bytes, request_id: str) -> Headers:
    fields = [(b"content-type", content_type), (b"x-request-id", request_id.encode())]
    if fault.seconds:
        fields.append((b"retry-after", b"%d" % fault.seconds))
    return fields


def _fault(error: BaseException) -> Fault:
    if isinstance(error, errors.PayloadTooLarge):
        return _ANSWER_TOO_LARGE if error.details.get("what") == "result" else _too_large(error)
    if isinstance(error, errors.Cancelled):
        return _GIVEN_UP
    if isinstance(error, errors.NoService) and error.details.get("maintenance") is True:
        return _MAINTENANCE
    if isinstance(error, errors.NoService) and error.details.get("unknown") == "handler":
        return _NO_HTTP
    if isinstance(error, errors.Timeout) and error.details.get("started") is False:
        return _NO_PROCESS
    return next((fault for kind, fault in _FAULTS if isinstance(error, kind)), _OTHER)


def _too_large(error: errors.Error) -> Fault:
    size, limit = error.details.get("size"), error.details.get("limit")
    if not isinstance(size, int) or not isinstance(limit, int):
        return _TOO_LARGE
    sentence = f"The request has {size} bytes with its headers, {limit} are allowed (master.max_message)"
    return _TOO_LARGE._replace(sentence=f"{sentence}; nothing was done.")


def _told(error: errors.Error) -> str:
    """What the service itself wants callers to be told (`[service.NAME.fault]`): rota's cause is then a detail."""
    return error.cause if "cause" in error.details else ""
