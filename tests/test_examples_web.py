"""The Django, Flask and FastAPI examples: each started by its command of docs/HOWTO-WEB.md, asked as browsers do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from web_rig import PACE_S, PATIENCE_S, Browser, Site, running, until
from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
HOWTO = (ROOT / "docs" / "HOWTO-WEB.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ rota run (.*) --http 127\.0\.0\.1:8080$", HOWTO, re.MULTILINE)
VALIDATED = Path(__file__).parent / "validated.py"
ENV = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def example(name: str, folder: Path) -> Iterator[Site]:
    """Started as the page says, with two processes and on free ports."""
    command = next(each for each in COMMANDS if f"examples/{name}" in each)
    with running(folder / "log", [*shlex.split(command), "-p", "2"], ROOT, ENV) as site:
        yield site.ready()


def roll(site: Site, service: str, browser: Browser) -> None:
    """A rolling update while requests come, from first to last: all are answered, in the end by other processes."""
    before = pids(browser)
    command = [sys.executable, "-P", "-m", "rota", "reload", service, "--timeout", "60s", "-m", site.master]
    reload = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=EXAMPLES)
    try:
        while reload.poll() is None:
            assert browser.get("/process").status == 200
            time.sleep(PACE_S)
        assert reload.returncode == 0, reload.stdout and reload.stdout.read()
    finally:
        reload.kill()
        reload.communicate()
    assert not before & pids(browser)


def pids(browser: Browser) -> set[int]:
    """Of both processes."""
    found: set[int] = set()

    def ask() -> bool:
        answer = browser.get("/process")
        assert answer.status == 200
        found.add(int(answer.text))
        return len(found) == 2

    until(ask, "one process answers all")
    return found


def fails_alone(site: Site, browser: Browser, line: str) -> None:
    """A broken page is a 500 without a traceback; the terminal has it, with the id of the request."""
    answer = browser.get("/broken", Accept="text/html")
    assert answer.status == 500
    assert "on purpose" not in answer.text and "Traceback" not in answer.text
    site.says("RuntimeError: this page is broken on purpose")
    assert line.format(answer.headers["x-request-id"]) in site.child.output()


def test_django_keeps_sessions_takes_forms_and_rolls(tmp_path: Path) -> None:
    with example("django", tmp_path) as site:
        browser = site.browser()
        page = browser.get("/")
        assert page.status == 200 and "none yet" in page.text
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token
        for note in ("milk", "<b>eggs</b>"):
            page = browser.post("/", form={"text": note, "csrfmiddlewaretoken": token[1]})
        assert page.status == 200 and "<li>milk</li><li>&lt;b&gt;eggs" in page.text
        assert browser.get("/notes.csv").text.splitlines() == ["number,note", "1,milk", "2,<b>eggs</b>"]
        assert "none yet" in site.browser().get("/").text  # of another visitor
        assert browser.post("/", form={"text": "", "csrfmiddlewaretoken": token[1]}).status == 400
        assert browser.post("/", form={"text": "forged"}).status == 403
        assert site.browser().get("/", Host="evil.example").status == 400
        assert browser.get("/nowhere").status == 404
        fails_alone(site, browser, "ERROR {} django.request: Internal Server Error: /broken")
        roll(site, "notes-wsgi", browser)
        assert "<li>milk</li>" in browser.get("/").text  # what the new processes know of the session
        site.end()


def test_flask_keeps_sessions_takes_forms_and_rolls(tmp_path: Path) -> None:
    with example("flask", tmp_path) as site:
        browser = site.browser()
        assert "<li>empty</li>" in browser.get("/").text
        page = browser.post("/add", form={"fruit": "pear"})
        assert page.status == 200 and "One pear more." in page.text and "1 × pear" in page.text
        assert "One pear more." not in browser.get("/").text  # told once
        assert "Total: 75" in browser.post("/add", form={"fruit": "apple"}).text
        assert browser.get("/basket.csv").text.splitlines() == ["fruit,number,price", "apple,1,30", "pear,1,45"]
        assert browser.post("/add", form={"fruit": "stone"}).status == 400
        missing = browser.get("/nowhere")
        assert missing.status == 404 and "There is nothing here" in missing.text
        assert browser.get("/add").status == 405
        fails_alone(site, browser, "ERROR {} shop: Exception on /broken [GET]")
        roll(site, "shop", browser)
        assert "1 × pear" in browser.get("/").text
        site.end()


def test_fastapi_validates_takes_uploads_and_rolls(tmp_path: Path) -> None:
    with example("fastapi", tmp_path) as site:
        browser = site.browser()

        def order(**fields: object) -> tuple[int, object]:
            answer = browser.post("/quotes", json.dumps(fields).encode(), Content_Type="application/json")
            return answer.status, json.loads(answer.text)

        assert order(symbol="ACME", quantity=4) == (201, {"symbol": "ACME", "price": 50.0})
        assert order(symbol="NONE", quantity=4) == (404, {"detail": "there is no NONE"})
        assert order(symbol="ACME", quantity=0)[0] == 422
        assert upload(browser, b"\x00\xff\r\n--" * 2000) == (201, "a.bin", 12_000)
        assert browser.get("/ticks?count=2").text == "id: 0\ndata: 12.5\n\nid: 1\ndata: 13.5\n\n"
        with connect(f"{site.url.replace('http', 'ws', 1)}/echo", proxy=None) as chat:
            chat.send("hello")
            assert chat.recv(PATIENCE_S) == "you said: hello"
        assert "/quotes" in browser.get("/openapi.json").text
        fails_alone(site, browser, "request {}: after its answer:\nTraceback")
        roll(site, "desk", browser)
        site.end()


def upload(browser: Browser, data: bytes) -> tuple[int, str, int]:
    head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    kind = "multipart/form-data; boundary=xyz"
    answer = browser.post("/uploads", head + data + b"\r\n--xyz--\r\n", Content_Type=kind)
    told = json.loads(answer.text)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    return answer.status, told["name"], told["size"]


@pytest.mark.parametrize(
    "folder, spec, statuses",
    [
        ("django", "notes.wsgi:application", [200, 200, 200, 404, 404, 403, 403]),
        ("flask", "shop:create --factory", [200, 200, 404, 200, 302, 405, 405]),
    ],
)
def test_the_validator_of_wsgi_finds_no_fault(folder: str, spec: str, statuses: list[int]) -> None:
    """Neither with the applications, nor with what hosts them."""
    command = [sys.executable, "-W", "error", "-P", str(VALIDATED), str(EXAMPLES / folder), *spec.split()]
    env = {**ENV, "DJANGO_ALLOWED_HOSTS": "shop.example", "PYTHONPATH": str(VALIDATED.parent)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert [int(line.split()[-1]) for line in done.stdout.splitlines()] == statuses
