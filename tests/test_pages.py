"""The bodies of a gateway's own answers: the built-in forms, and what a service puts in their place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common.errors import NoService, Overloaded, PayloadTooLarge, Timeout
from rota.gateway.core import answers, forms
from rota.gateway.core.forms import Fault
from rota.gateway.core.pages import PAGE_MAX, BadPage, Pages
from rota.gateway.pages import ServicePages

NASTY = "a <b> & \"c\" 'd' \\ \n é $status ${title} ]]> \x00\x0b\ufffe \U0001f600"
ALL = (forms.HTML, forms.PROBLEM, forms.TEXT, forms.SOAP11, forms.SOAP12)
SUFFIX = {
    forms.HTML: "html",
    forms.PROBLEM: "json",
    forms.TEXT: "txt",
    forms.SOAP11: "soap11.xml",
    forms.SOAP12: "soap12.xml",
}
MAINTENANCE = NoService("closed", retry_after=600, details={"maintenance": True})


# ---- which form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ([(b"soapaction", b'""'), (b"accept", b"text/html")], forms.SOAP11),
        ([(b"content-type", b"Application/SOAP+XML; action=x")], forms.SOAP12),
        ([(b"content-type", b"text/xml")], forms.TEXT),
        ([(b"content-type", b"application/soap+xmlish"), (b"accept", b"text/html")], forms.HTML),
        ([(b"accept", b"image/png"), (b"accept", b"application/json")], forms.PROBLEM),
    ],
)
def test_soap_is_answered_in_soap_and_all_else_as_accept_says(fields: list[tuple[bytes, bytes]], form: str) -> None:
    assert forms.form_for(fields) == form


def test_a_soap_fault_has_the_status_that_soap_has_for_it_and_says_the_other_one_in_its_detail() -> None:
    later = answers.of_error(Overloaded("full", retry_after=2), "id-7", forms.SOAP11)
    assert later.status == 500 and dict(later.headers)[b"retry-after"] == b"2"
    assert dict(later.headers)[b"content-type"] == b"text/xml; charset=utf-8"
    assert answers.of_error(PayloadTooLarge("big"), "id", forms.SOAP12).status == 400
    assert answers.of_error(Timeout("late"), "id", forms.SOAP12).status == 500

    envelope = ElementTree.fromstring(later.body)
    fault = envelope.find(".//{http://schemas.xmlsoap.org/soap/envelope/}Fault")
    assert fault is not None and fault.findtext("faultcode") == "soap:Server" and fault.findtext("faultstring")
    assert envelope.findtext(".//{urn:rota:fault}status") == "503"
    assert envelope.findtext(".//{urn:rota:fault}request-id") == "id-7"

    envelope = ElementTree.fromstring(answers.of_error(PayloadTooLarge("big"), "id", forms.SOAP12).body)
    assert envelope.findtext(".//{http://www.w3.org/2003/05/soap-envelope}Value") == "env:Sender"
    assert envelope.findtext(".//{urn:rota:fault}status") == "413"


@given(st.text(), st.text(max_size=20), st.text(max_size=20))
def test_no_word_of_a_service_or_client_breaks_the_form_it_stands_in(sentence: str, code: str, its_id: str) -> None:
    fault = Fault(503, sentence.encode("utf-8", "replace").decode(), code.encode("utf-8", "replace").decode())
    its_id = its_id.encode("utf-8", "replace").decode()
    own = Pages(
        {
            "fault.json": b'{"a": "$sentence", "b": "$code $request_id"}',
            "fault.soap11.xml": b'<a b="$code">$sentence $request_id</a>',
            "fault.soap12.xml": b"<a b='$code'>$sentence</a>",
            "fault.html": b"<p title=\"$code\" class='$request_id'>$sentence</p>",
        }
    )
    for each in (forms.body(forms.PROBLEM, fault, its_id), own.body(forms.PROBLEM, fault, its_id)):
        assert fault.sentence in json.loads(each or b"").values()
    for form in (forms.SOAP11, forms.SOAP12):
        ElementTree.fromstring(forms.body(form, fault, its_id))
        ElementTree.fromstring(own.body(form, fault, its_id) or b"")
    page = own.body(forms.HTML, fault, its_id) or b""
    assert page.count(b"<") == 2 and page.count(b'"') == 2 and page.count(b"'") == 2


# ---- a service's own ------------------------------------------------------------------------------------------------


def test_the_most_specific_page_wins() -> None:
    names = ["maintenance", "503", "5xx", "fault"]
    for place in range(len(names)):
        pages = Pages({f"{name}.html": name.encode() for name in names[place:]})
        assert answers.of_error(MAINTENANCE, "id", forms.HTML, pages).body == names[place].encode()
    pages = Pages({f"{name}.html": name.encode() for name in names})
    for other in (Overloaded("full"), NoService("unknown", details={"unknown": "service"})):
        assert answers.of_error(other, "id", forms.HTML, pages).body == b"503"
    assert answers.of_error(Timeout("late"), "id", forms.HTML, pages).body == b"5xx"
    assert answers.of_error(PayloadTooLarge("big"), "id", forms.HTML, pages).body == b"fault"


def test_a_form_without_a_page_is_the_built_in_one() -> None:
    pages = Pages({"fault.html": b"own"})
    for form in ALL:
        answer = answers.of_error(MAINTENANCE, "id", form, pages)
        assert (answer.body == b"own") is (form == forms.HTML)
        assert dict(answer.headers)[b"retry-after"] == b"600"


def test_placeholders_are_filled_and_any_other_dollar_stays() -> None:
    text = "$status $title $code $request_id $retry_after ${status} $$ $unknown $5 $('#a') $Status"
    pages = Pages({"fault.txt": b"\xef\xbb\xbf" + text.encode()})
    error = Overloaded("Busy", retry_after=1.2, details={"cause": "c", "code": "E"})
    told = answers.of_error(error, "id-7", forms.TEXT, pages).body.decode()
    assert told == "503 Service Unavailable E id-7 2 503 $ $unknown $5 $('#a') $Status"
    assert b" 0 " in answers.of_error(Timeout("late"), "i", forms.TEXT, pages).body, "no time is said: 0"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("503.htm", b"", "no name of a page"),
        ("603.html", b"", "no name of a page"),
        ("index.html", b"", "no name of a page"),
        ("503.html", b"\xff", "not UTF-8, at byte 0"),
        ("503.html", bytes(PAGE_MAX + 1), "more than 262144 bytes"),
        ("503.json", b'{"detail": $sentence}', "no JSON object"),
        ("503.json", b'["$sentence"]', "an object is expected"),
        ("503.json", b"[" * 100_000, "no JSON object"),
        ("503.soap11.xml", b"<a>$sentence</b>", "no well-formed XML"),
        ("503.soap12.xml", b"", "no well-formed XML"),
    ],
)
def test_what_can_be_no_page_is_refused_with_its_name(name: str, data: bytes, why: str) -> None:
    with pytest.raises(BadPage, match=f"^{name}: .*{why}"):
        Pages({name: data})


def test_all_pages_of_a_service_have_a_bound() -> None:
    with pytest.raises(BadPage, match="in all"):
        Pages({f"{status}.html": bytes(PAGE_MAX) for status in range(500, 517)})


# ---- files ----------------------------------------------------------------------------------------------------------


def test_files_are_read_at_the_start_and_again_when_somebody_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fault.txt").write_text("one")
    for passed_over in (".hidden", "503.html~", ".503.html.swp"):
        (tmp_path / passed_over).write_bytes(b"\xff")
    pages = ServicePages({"shop": str(tmp_path)})
    fault = Fault(503, "")
    assert pages.of("shop").body(forms.TEXT, fault, "") == b"one"
    assert pages.of("other").body(forms.TEXT, fault, "") is None
    (tmp_path / "fault.txt").write_text("two")
    assert pages.of("shop").body(forms.TEXT, fault, "") == b"one"
    assert pages.read_again() and pages.of("shop").body(forms.TEXT, fault, "") == b"two"
    (tmp_path / "fault.json").write_text("{")
    assert not pages.read_again() and pages.of("shop").body(forms.TEXT, fault, "") == b"two"
    assert f"the pages of shop: {tmp_path}/fault.json: no JSON object" in capfd.readouterr().err


def test_a_directory_or_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPage, match="the pages of shop: /nowhere cannot be read: No such file or directory"):
        ServicePages({"shop": "/nowhere"})
    os.mkfifo(tmp_path / "503.html")
    with pytest.raises(BadPage, match=r"503\.html: no file"):
        ServicePages({"shop": str(tmp_path)})
    (tmp_path / "503.html").unlink()
    (tmp_path / "503.html").symlink_to("nowhere")
    with pytest.raises(BadPage, match=r"503\.html: a link that leads nowhere"):
        ServicePages({"shop": str(tmp_path)})
