"""The bodies of a gateway's own answers: a page, problem details, text, or a fault of SOAP. Pure."""

from __future__ import annotations

import json
import re
from html import escape
from math import ceil
from typing import NamedTuple

from .response import PHRASES

HTML, PROBLEM, TEXT, SOAP11, SOAP12 = "html", "problem", "text", "soap 1.1", "soap 1.2"
MIME = {
    HTML: b"text/html; charset=utf-8",
    PROBLEM: b"application/problem+json; charset=utf-8",
    TEXT: b"text/plain; charset=utf-8",
    SOAP11: b"text/xml; charset=utf-8",
    SOAP12: b"application/soap+xml; charset=utf-8",
}
_ACCEPTED = {
    "text/html": HTML,
    "application/xhtml+xml": HTML,
    "text/*": HTML,
    "application/problem+json": PROBLEM,
    "application/json": PROBLEM,
    "application/*": PROBLEM,
    "text/plain": TEXT,
    "*/*": TEXT,
}
_RANGES_MAX = 32  # of one Accept; browsers send eight
# No reference can stand for these. What XML has, negated, is the same set, and takes long to compile at each start.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Fault(NamedTuple):
    """What a client is told. `code`: the application's own for it, if it has one. `retry_after`: seconds."""

    status: int
    sentence: str
    code: str = ""
    retry_after: float | None = None
    maintenance: bool = False

    @property
    def title(self) -> str:
        return PHRASES.get(self.status, "Error")

    @property
    def seconds(self) -> int:
        """Until it is worth trying again; 0: that is not said."""
        return 0 if self.retry_after is None else max(1, ceil(self.retry_after))


# ---- which form -----------------------------------------------------------------------------------------------------


def form_for(fields: list[tuple[bytes, bytes]]) -> str:
    """Of a request with these headers: SOAP is answered in SOAP, all else as Accept says."""
    accept = []
    for name, value in fields:
        if name == b"soapaction":
            return SOAP11
        if name == b"content-type" and value.lower().partition(b";")[0].strip() == b"application/soap+xml":
            return SOAP12
        if name == b"accept":
            accept.append(value)
    return form_of(b",".join(accept))


def form_of(accept: bytes) -> str:
    """The one of the three that the client likes best; text for who does not say."""
    best, form = 0.0, TEXT
    for item in accept.decode("latin-1").lower().split(",", _RANGES_MAX)[:_RANGES_MAX]:
        kind, _, parameters = item.partition(";")
        known, quality = _ACCEPTED.get(kind.strip()), _quality(parameters)
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


def status_in(form: str, status: int) -> int:
    """SOAP has its own for faults, and its clients read no fault with another: 500 (WS-I BP 1.1 R1126), and in 1.2 400
    where the sender is at fault (SOAP 1.2 part 2, table 20).
    """
    if form == SOAP11:
        return 500
    return status if form != SOAP12 else 400 if status < 500 else 500


# ---- as bytes -------------------------------------------------------------------------------------------------------


def body(form: str, fault: Fault, request_id: str) -> bytes:
    return _WRITERS[form](fault, request_id).encode()


def in_xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


_LOOK = '<meta name="viewport" content="width=device-width"><style>body{font-family:sans-serif;margin:2em}</style>'


def _html(fault: Fault, request_id: str) -> str:
    status, title = fault.status, fault.title
    more = f" &middot; {escape(fault.code)}" if fault.code else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_LOOK}<title>{status} {title}</title></head>\n'
        f"<body><h1>{title}</h1>\n<p>{escape(fault.sentence)}</p>\n"
        f"<p><small>{status}{more} &middot; request {escape(request_id)}</small></p></body></html>\n"
    )


def problem(fault: Fault, request_id: str) -> dict[str, object]:
    """RFC 9457."""
    fields = {
        "type": "about:blank",
        "title": fault.title,
        "status": fault.status,
        "detail": fault.sentence,
        "request_id": request_id,
    }
    return fields | ({"code": fault.code} if fault.code else {})


def _problem(fault: Fault, request_id: str) -> str:
    return json.dumps(problem(fault, request_id)) + "\n"


def _text(fault: Fault, request_id: str) -> str:
    code = f" ({fault.code})" if fault.code else ""
    return f"{fault.status} {fault.title}{code}\n{fault.sentence}\nrequest {request_id}\n"


def _detail(fault: Fault, request_id: str) -> str:
    code = f"<code>{in_xml(fault.code)}</code>" if fault.code else ""
    return (
        f'<fault xmlns="urn:rota:fault"><status>{fault.status}</status><title>{fault.title}</title>{code}'
        f"<request-id>{in_xml(request_id)}</request-id></fault>"
    )


def _soap11(fault: Fault, request_id: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body><soap:Fault>'
        f"<faultcode>soap:{'Client' if fault.status < 500 else 'Server'}</faultcode>"
        f"<faultstring>{in_xml(fault.sentence)}</faultstring><detail>{_detail(fault, request_id)}</detail>"
        "</soap:Fault></soap:Body></soap:Envelope>\n"
    )


def _soap12(fault: Fault, request_id: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<env:Envelope xmlns:env="http://www.w3.org/2003/05/soap-envelope"><env:Body><env:Fault>'
        f"<env:Code><env:Value>env:{'Sender' if fault.status < 500 else 'Receiver'}</env:Value></env:Code>"
        f'<env:Reason><env:Text xml:lang="en">{in_xml(fault.sentence)}</env:Text></env:Reason>'
        f"<env:Detail>{_detail(fault, request_id)}</env:Detail></env:Fault></env:Body></env:Envelope>\n"
    )


_WRITERS = {HTML: _html, PROBLEM: _problem, TEXT: _text, SOAP11: _soap11, SOAP12: _soap12}
