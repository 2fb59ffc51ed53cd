"""`rota run --reload`: changed code is served, broken code is not, and exceptions are shown to whoever develops."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import joined
from hosting_rig import answer_of, failure_of, request
from web_rig import PACE_S, Browser, Site, running, until

from rota.cli.reloading import OUTPUT_MAX
from rota.common.settings import SlaveSettings
from rota.worker import dev, wsgi
from rota.worker.error_page import Asked, of_broken_code, of_exception
from rota.worker.hosting import SyncHost
from rota.worker.interface import DEV, worker_of
from rota.worker.spawn import Loaded, Probe

BROWSER = {"Accept": "text/html,*/*;q=0.8"}
ENV = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
APP = """\
import os
from threading import Event


def application(environ, start_response):
    if environ["PATH_INFO"] == "/broken":
        raise LookupError("no <shelf> of that name")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid() if environ["PATH_INFO"] == "/process" else b"one"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_application(tmp_path)


def with_application(where: Path) -> Path:
    (where / "app").mkdir()
    (where / "app" / "shop.py").write_text(APP)
    return where / "app"


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site; each test leaves it as it was."""
    return with_application(tmp_path_factory.mktemp("edited"))


@pytest.fixture(scope="module")
def site(edited: Path) -> Iterator[Site]:
    with running(edited.parent / "log", ["shop:application", "--reload"], edited, ENV) as site:
        yield site.ready()
        site.end()


def write(folder: Path, old: str, new: str) -> None:
    """As editors do it."""
    text = (folder / "shop.py").read_text()
    assert old in text
    (folder / "shop.new").write_text(text.replace(old, new))
    (folder / "shop.new").replace(folder / "shop.py")


class Asking:
    """GETs, one after the other, as long as the block runs."""

    def __init__(self, browser: Browser) -> None:
        self.answers: list[tuple[int, str]] = []
        self._browser = browser
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        joined(self._thread, what="a request of the load")

    def _run(self) -> None:
        while not self._over:
            answer = self._browser.get("/")
            self.answers.append((answer.status, answer.text))
            time.sleep(PACE_S)


def test_changed_code_is_served_and_no_request_is_lost(site: Site, edited: Path) -> None:
    with Asking(site.browser()) as asking:
        for old, new in (("one", "two"), ("two", "one")):
            write(edited, f'b"{old}"', f'b"{new}"')
            site.says("rota run: shop.py changed")
            site.says("rota run: the changed code serves")
            assert site.browser().get("/").text == new
    assert {status for status, _ in asking.answers} == {200}
    assert {text for _, text in asking.answers} == {"one", "two"}


def test_code_that_does_not_load_is_told_everywhere_and_does_not_serve(site: Site, edited: Path) -> None:
    browser = site.browser()
    process = browser.get("/process").text
    write(edited, "def application(environ", "def application(:environ")
    site.says("SyntaxError: invalid syntax")
    site.says("the code does not load")
    page = browser.get("/", **BROWSER)
    assert page.status == 500 and page.headers["content-type"].startswith("text/html")
    assert "SyntaxError" in page.text and "def application(:environ" in page.text
    assert "importlib" not in page.text and "loading.py" not in page.text  # nothing that is rota's own
    assert browser.get("/").text == "one"  # what is no page comes from the process that was there
    assert browser.post("/", b"", **BROWSER).text == "one"
    assert browser.get("/process").text == process
    write(edited, "(:environ", "(environ")
    site.says("the changed code serves")
    assert browser.get("/", **BROWSER).text == "one"
    assert browser.get("/process").text != process


def test_code_that_does_not_load_at_first_or_does_not_start_is_tried_again_when_it_is_mended(tmp_path: Path) -> None:
    source = tmp_path / "shop.py"
    text = "import rota\nshop = rota.Worker('shop')\n@shop.handler\ndef quote(): ...\n@shop.on_start\ndef start(): %s\n"
    source.write_text(text.replace("import rota", "import rotta") % "...")
    with running(tmp_path / "log", ["shop.py", "--reload"], tmp_path, ENV) as site:
        site.says("No module named 'rotta'")
        source.write_text(text % "...")
        site.says("rota gateway: http://")
        source.write_text(text % "raise OSError('no database')")
        site.says("OSError: no database")
        site.says("the changed code does not start")
        source.write_text(text % "print('well')")
        site.says("the changed code serves")
        until(lambda: "well" in site.child.output(), "the new code did not start")
        site.end()


def probed(folder: Path, application: str, **options: Any) -> Loaded:
    (folder / "shop.py").write_text(application)
    probe = Probe(SlaveSettings(app="shop.py", app_dir=str(folder), **options))
    pidfd = os.pidfd_open(probe.pid)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    loaded = probe.outcome(most=OUTPUT_MAX)
    assert loaded is not None
    return loaded


def test_code_that_makes_itself_a_daemon_is_not_waited_for(tmp_path: Path) -> None:
    """It has the pipe of the probe, which has said nothing."""
    daemon = "import os, time\nif not os.fork():\n    os.setsid()\n    print(os.getpid(), file=open('pid', 'w'))\n"
    wait = "    time.sleep(60)\nwhile not os.path.exists('pid') or not os.path.getsize('pid'): pass\nos._exit(0)\n"
    assert probed(tmp_path, daemon + wait) == Loaded(False, "the application failed to load: exited with 0")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_of_much_that_a_failed_load_says_its_end_is_told(tmp_path: Path) -> None:
    loaded = probed(tmp_path, "print('chatter ' * 20_000)\nraise OSError('no database')\n")
    assert not loaded.ok
    assert "chatter chatter" in loaded.text and loaded.text.endswith("\nOSError: no database")


def test_code_that_does_not_fit_the_flags_does_not_load(tmp_path: Path) -> None:
    shop = "import rota\nshop = rota.Worker('shop')\n@shop.handler\ndef quote(): ...\n"
    assert probed(tmp_path, shop) == Loaded(True, "shop")
    loaded = probed(tmp_path, shop, threads=2)
    assert not loaded.ok and "--threads 2: threads are for WSGI applications" in loaded.text


def test_an_exception_is_a_page_for_browsers_and_text_for_others(site: Site) -> None:
    page = site.browser().get("/broken?a=%3Cb%3E", Cookie="id=<i>", **BROWSER)
    known_as = page.headers["x-request-id"]
    assert page.status == 500 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert "no &lt;shelf&gt; of that name" in page.text and "<shelf>" not in page.text
    assert "id=&lt;i&gt;" in page.text and "<i>" not in page.text
    assert "GET /broken?a=%3Cb%3E" in page.text and known_as in page.text
    assert "shop.py:7" in page.text
    text = site.browser().get("/broken")
    assert text.status == 500 and text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text.endswith("LookupError: no <shelf> of that name\n") and "<html" not in text.text
    for line in (f"request {known_as}: GET /broken?a=%3Cb%3E\nTraceback", '"GET /broken HTTP/1.1" 500'):
        until(lambda line=line: line in site.child.output(), line)


def test_without_reload_nothing_is_shown(folder: Path) -> None:
    with running(folder.parent / "log", ["shop:application", "-p", "1"], folder, ENV) as site:
        for accept in ("text/html", "*/*"):
            answer = site.ready().browser().get("/broken", Accept=accept)
            assert answer.status == 500
            assert not any(word in answer.text for word in ("shelf", "Lookup", "shop.py", "Traceback"))
        site.end()


def test_reload_without_its_package_says_what_to_install(folder: Path) -> None:
    (folder / "none").mkdir()
    (folder / "none" / "watchfiles.py").write_text("raise ImportError")
    env = {**ENV, "PYTHONPATH": str(folder / "none")}
    with running(folder.parent / "log", ["shop:application", "--reload"], folder, env) as site:
        site.says("Error: --reload needs the package watchfiles: pip install 'rota[reload]'")
        assert site.child.wait(10) and site.child.status() == 1


# ---- the pages, without processes ----

ASKED = Asked("4f-7", "GET /", [("accept", "text/html")])


@pytest.fixture
def in_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that holds why code is broken."""
    monkeypatch.setenv(DEV, str(tmp_path / "broken"))
    return tmp_path / "broken"


def ask(application: Any, accept: bytes = b"text/html", method: str = "GET") -> Any:
    host = SyncHost(wsgi.worker(application, "site"))
    return host.run(request(method, b"/a", [[b"host", b"x"], [b"accept", accept]]))


def raising(*blocks: bytes, started: bool = True) -> Callable[..., Iterator[bytes]]:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        if started:
            start_response("200 OK", [("Content-Length", "100")])
        yield from blocks
        raise ValueError("late")

    return application


@pytest.mark.parametrize("application", [raising(), raising(started=False)])
def test_an_exception_before_the_body_replaces_what_was_said(in_dev: Path, application: Any) -> None:
    answer = answer_of(ask(dev.wsgi(application)))
    assert answer.status == 500 and b"ValueError" in answer.body
    assert dict(answer.headers)[b"content-length"] == str(len(answer.body)).encode()


def test_an_exception_within_the_body_is_too_late_for_a_page(in_dev: Path) -> None:
    assert failure_of(ask(dev.wsgi(raising(b"x")))).message == "late"


class Body:
    """Its own iterator, as those of frameworks are."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        if self.closed:
            raise StopIteration
        return b"x"

    def close(self) -> None:
        self.closed += 1


def test_what_the_application_returned_is_closed_once_also_when_nobody_reads_it_to_the_end(in_dev: Path) -> None:
    body = Body()
    blocks = dev.wsgi(lambda environ, start_response: body)(
        {"rota.request_id": "4f-7", "REQUEST_METHOD": "GET", "REQUEST_URI": "/"}, lambda *_: None
    )
    assert next(blocks) == b"x" and body.closed == 0
    blocks.close()
    assert body.closed == 1


def test_only_the_variable_turns_it_on(in_dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for value in (str(in_dev), ""):
        monkeypatch.setenv(DEV, value)
        host = SyncHost(worker_of(raising(started=False), "shop:application", "wsgi", ""))
        outcomes.append(host.run(request("GET", b"/", [[b"accept", b"text/html"]])))
    assert answer_of(outcomes[0]).status == 500
    assert failure_of(outcomes[1]).message == "late"


def sent_by(application: Any, accept: bytes = b"text/html") -> tuple[list[dict[str, Any]], BaseException | None]:
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/a",
        "query_string": b"b=1",
        "headers": [(b"accept", accept)],
        "extensions": {"rota": {"request_id": "4f-7"}},
    }
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def run() -> None:
        await dev.asgi(application)(scope, None, send)  # type: ignore[arg-type]

    try:
        asyncio.run(run())
    except ValueError as error:
        return sent, error
    return sent, None


def sending(*statuses: int, fails: bool) -> Callable[..., Any]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        for status in statuses:
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"own"})
        if fails:
            raise ValueError("late")

    return application


def test_the_page_takes_the_place_of_the_answer_to_an_exception_that_is_raised_again(in_dev: Path) -> None:
    sent, error = sent_by(sending(500, fails=True))
    assert error is None and [message.get("status") for message in sent] == [500, None]
    assert b"ValueError" in sent[1]["body"] and b"GET /a?b=1" in sent[1]["body"]
    assert sent_by(sending(fails=True))[0][0]["status"] == 500


def test_an_answer_of_the_application_stays_its_own(in_dev: Path) -> None:
    for status in (200, 500):
        sent, _ = sent_by(sending(status, fails=False))
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        assert (sent[0]["status"], sent[1]["body"]) == (status, b"own")
    sent, error = sent_by(sending(200, fails=True))
    assert len(sent) == 2 and sent[1]["body"] == b"own" and str(error) == "late"


def test_pages_of_broken_code_are_for_those_who_look_at_pages(in_dev: Path) -> None:
    in_dev.write_text("NameError: shlef")
    sent, _ = sent_by(sending(200, fails=False))
    assert b"NameError" in sent[1]["body"] and (b"x-rota-broken", b"1") in sent[0]["headers"]
    assert sent_by(sending(200, fails=False), accept=b"*/*")[0][1]["body"] == b"own"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class HostileError(Exception):
    __str__ = __repr__ = Hostile.__repr__


def test_whatever_is_raised_makes_a_page() -> None:
    def fail(hidden: object, size: int) -> None:
        try:
            raise HostileError from KeyError("<cause>")
        except HostileError as error:
            raise ValueError("\udc80" * size) from error

    with pytest.raises(ValueError) as caught:
        fail(Hostile(), 3)
    page = of_exception(caught.value, ASKED).body.decode()
    assert "It was raised because of this:" in page and "&lt;cause&gt;" in page
    assert "(cannot be shown)" in page and "local variables" in page


def test_a_chain_without_an_end_makes_a_page() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert b"two" in of_exception(one, ASKED).body


def test_what_broken_code_says_is_escaped() -> None:
    assert b"<x>" not in of_broken_code("Traceback\n<x>\nSyntaxError: <x>", ASKED).body
