"""What a gateway itself answers: faults as statuses, with a small body in the form that the client asks for."""

from __future__ import annotations

import json
from html import escape
from math import ceil
from typing import NamedTuple

from ...common import errors

Headers = list[tuple[bytes, bytes]]

CLIENT_GONE = 499  # of the access log only, as nginx writes it: nobody is there to be answered
RETRY_AFTER_S = 1.0  # where nobody knows better: processes and masters are back within seconds

HTML, PROBLEM, TEXT = "text/html", "application/problem+json", "text/plain"
_FORMS = {
    "text/html": HTML,
    "application/xhtml+xml": HTML,
    "text/*": HTML,
    "application/problem+json": PROBLEM,
    "application/json": PROBLEM,
    "application/*": PROBLEM,
    "text/plain": TEXT,
    "*/*": TEXT,
}
_TITLES = {
    404: "Not Found",
    413: "Content Too Large",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_RANGES_MAX = 32  # of one Accept; browsers send eight


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class _Fault(NamedTuple):
    status: int
    sentence: str


# Read from the top: a subclass stands above its base. The sentences name no machine and no cause inside: that is in
# the log, under the request's id.
_FAULTS: tuple[tuple[type[BaseException], _Fault], ...] = (
    (errors.Overloaded, _Fault(503, "There are too many requests right now; nothing was done. Try again shortly.")),
    (errors.Unavailable, _Fault(503, "The service is not available right now; nothing was done. Try again shortly.")),
    (errors.Timeout, _Fault(504, "The service did not answer in time; what you asked for may still be done.")),
    (errors.Quarantined, _Fault(500, "Requests like this one end the service; it was not tried again.")),
    (errors.NotExecuted, _Fault(502, "The request was lost before anything was done. Try again.")),
    (errors.MaybeExecuted, _Fault(502, "The service failed while it worked on the request; it may have been done.")),
    (errors.RemoteError, _Fault(500, "The service failed on this request.")),
    (errors.Conflict, _Fault(422, "This Idempotency-Key came with another request before; nothing was done.")),
)
_OTHER = _Fault(502, "The service gave no answer that can be passed on.")
_TOO_LARGE = _Fault(413, "The request is too large; nothing was done.")
_ANSWER_TOO_LARGE = _Fault(502, "The answer of the service is too large to be passed on.")
_GONE = _Fault(CLIENT_GONE, "The client went away.")
_LATER = (errors.Unavailable,)  # trying again makes sense, and this is when


def of_error(error: BaseException, request_id: str, accept: bytes) -> Answer:
    """The answer that an error of a call stands for."""
    status, sentence = _fault(error)
    told = _told(error)
    later = error.retry_after or RETRY_AFTER_S if isinstance(error, _LATER) else None
    return made(status, told or sentence, request_id, accept, later, _code(error))


def made(
    status: int, sentence: str, request_id: str, accept: bytes, retry_after: float | None = None, code: str = ""
) -> Answer:
    """retry_after: seconds. code: the application's own for this fault, if it has one."""
    form = form_of(accept)
    headers = [(b"content-type", f"{form}; charset=utf-8".encode()), (b"x-request-id", request_id.encode())]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(retry_after))))
    return Answer(
        status, headers, _WRITERS[form](status, _TITLES.get(status, "Error"), sentence, request_id, code).encode()
    )


def form_of(accept: bytes) -> str:
    """The one of the three that the client likes best; text for who does not say."""
    best, form = 0.0, TEXT
    for item in accept.decode("latin-1").lower().split(",", _RANGES_MAX)[:_RANGES_MAX]:
        kind, _, parameters = item.partition(";")
        known, quality = _FORMS.get(kind.strip()), _quality(parameters)
        if known is not None and quality > best:
            best, form = quality, known
    return form


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, float(value)) if value[:1].isdigit() else 0.0
            except ValueError:
                return 0.0
    return 1.0


def _fault(error: BaseException) -> _Fault:
    if isinstance(error, errors.PayloadTooLarge):
        return _ANSWER_TOO_LARGE if error.details.get("what") == "result" else _TOO_LARGE
    if isinstance(error, errors.Cancelled):
        return _GONE
    return next((fault for kind, fault in _FAULTS if isinstance(error, kind)), _OTHER)


def _told(error: BaseException) -> str:
    """What the service itself wants callers to be told (`[service.NAME.fault]`): rota's cause is then a detail."""
    return error.cause if isinstance(error, errors.Error) and "cause" in error.details else ""


def _code(error: BaseException) -> str:
    code = error.details.get("code") if isinstance(error, errors.Error) else None
    return code if isinstance(code, str) else ""


def _html(status: int, title: str, sentence: str, request_id: str, code: str) -> str:
    more = f" &middot; {escape(code)}" if code else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{status} {title}</title></head>\n'
        f"<body><h1>{title}</h1>\n<p>{escape(sentence)}</p>\n"
        f"<p><small>{status}{more} &middot; request {escape(request_id)}</small></p></body></html>\n"
    )


def _problem(status: int, title: str, sentence: str, request_id: str, code: str) -> str:
    """RFC 9457."""
    fields = {"type": "about:blank", "title": title, "status": status, "detail": sentence, "request_id": request_id}
    return json.dumps(fields | ({"code": code} if code else {})) + "\n"


def _text(status: int, title: str, sentence: str, request_id: str, code: str) -> str:
    return f"{status} {title}{f' ({code})' if code else ''}\n{sentence}\nrequest {request_id}\n"


_WRITERS = {HTML: _html, PROBLEM: _problem, TEXT: _text}
