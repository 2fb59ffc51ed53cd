"""A service's own bodies for the faults that a gateway answers with: files of a directory, read as templates. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from html import escape
from string import Template
from xml.parsers import expat

from .forms import HTML, PROBLEM, SOAP11, SOAP12, TEXT, Fault, in_xml

PAGE_MAX = 256 * 1024  # bytes of one file: a page with its style and a logo in it
PAGES_MAX = 4 * 1024 * 1024  # of all of a service: they are kept in each process of a gateway
_NAME = re.compile(r"(maintenance|fault|[45]xx|[45][0-9]{2})\.(html|json|txt|soap11\.xml|soap12\.xml)")
_FORMS = {"html": HTML, "json": PROBLEM, "txt": TEXT, "soap11.xml": SOAP11, "soap12.xml": SOAP12}
_ESCAPES: Mapping[str, Callable[[str], str]] = {
    HTML: escape,
    PROBLEM: lambda text: json.dumps(text)[1:-1],
    TEXT: str,
    SOAP11: in_xml,
    SOAP12: in_xml,
}
_SAMPLE = Fault(503, "a <sentence> & a \"quote\" of 'it'", "E-1", 60.0)


class BadPage(ValueError):
    """A file that can be no page; says which and why."""


class Pages:
    """`body` answers None where the service has no page for this fault in this form."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Name → content. Raises BadPage."""
        self._templates: dict[tuple[str, str], Template] = {}
        for name, data in files.items():
            what, form = _meant(name)
            self._templates[what, form] = template = Template(_text(name, data))
            _check(name, form, _filled(template, form, _SAMPLE, "id"))
        if sum(map(len, files.values())) > PAGES_MAX:
            raise BadPage(f"the pages have more than {PAGES_MAX} bytes in all")

    def body(self, form: str, fault: Fault, request_id: str) -> bytes | None:
        for what in _most_specific_first(fault):
            template = self._templates.get((what, form))
            if template is not None:
                return _filled(template, form, fault, request_id).encode()
        return None


NONE = Pages({})


def is_page(name: str) -> bool:
    """False for what editors and orchestrators leave beside the files that are meant."""
    return not name.startswith(".") and not name.endswith("~")


def _most_specific_first(fault: Fault) -> list[str]:
    rest = [str(fault.status), f"{fault.status // 100}xx", "fault"]
    return ["maintenance", *rest] if fault.maintenance else rest


def _filled(template: Template, form: str, fault: Fault, request_id: str) -> str:
    escaped = _ESCAPES[form]
    return template.safe_substitute(
        status=fault.status,
        title=escaped(fault.title),
        sentence=escaped(fault.sentence),
        code=escaped(fault.code),
        request_id=escaped(request_id),
        retry_after=fault.seconds,
    )


def _meant(name: str) -> tuple[str, str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise BadPage(f"{name}: no name of a page; they are called maintenance, 503 (a status), 5xx, 4xx or fault, "
                      "with .html, .json, .txt, .soap11.xml or .soap12.xml behind it")  # fmt: skip
    return found[1], _FORMS[found[2]]


def _text(name: str, data: bytes) -> str:
    if len(data) > PAGE_MAX:
        raise BadPage(f"{name}: it has more than {PAGE_MAX} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadPage(f"{name}: not UTF-8, at byte {error.start}") from None


def _check(name: str, form: str, text: str) -> None:
    """As it will be sent: with its placeholders filled."""
    try:
        if form == PROBLEM and not isinstance(json.loads(text), dict):
            raise ValueError("an object is expected")
        if form in (SOAP11, SOAP12):
            expat.ParserCreate().Parse(text.encode(), True)
    except (ValueError, RecursionError) as error:
        raise BadPage(f"{name}: no JSON object once its placeholders are filled: {error}") from None
    except expat.ExpatError as error:
        raise BadPage(f"{name}: no well-formed XML once its placeholders are filled: {error}") from None
