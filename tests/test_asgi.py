"""An ASGI application behind the handler `http`: scopes, messages, lifespan, and what is refused of its answers."""

import asyncio
import queue
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hosting_rig import PATIENCE_S, Answer, Driven, answer_of, arguments, failure_of, request, starts

import rota
from rota.common.body import decode_error
from rota.testing import LocalCluster
from rota.worker import asgi
from rota.worker.async_hosting import AsyncHost
from rota.worker.hosting import Outcome, SyncHost

EXAMPLE = Path(__file__).parent.parent / "examples" / "http" / "asgi_hello.py"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END = {"type": "http.response.body"}

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Hosted:
    """A real AsyncHost in a thread, with an application that serves."""

    def __init__(self, application: Any, start: bool = True) -> None:
        self.outcomes: queue.Queue[tuple[int, Outcome]] = queue.Queue()
        self.failure: list[BaseException] = []
        sync = SyncHost(asgi.worker(application, "site"))
        self.host = Driven(sync, starts, lambda *outcome: self.outcomes.put(outcome), concurrency=8, threads=1)
        self._ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        if start:
            assert self._ready.wait(PATIENCE_S), self.failure

    def _run(self) -> None:
        try:
            self.host.run(self._ready.set)
        except BaseException as error:
            self.failure.append(error)

    def start(self, *given: Any, **named: Any) -> None:
        self.host.take(request(*given, **named))

    def next(self) -> tuple[int, Outcome]:
        return self.outcomes.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self.host.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def hosted() -> Iterator[Callable[..., Hosted]]:
    made: list[Hosted] = []

    def host(application: Any) -> Hosted:
        made.append(Hosted(http_only(application)))
        return made[-1]

    yield host
    for each in made:
        each.close()


@pytest.fixture
def ask(hosted: Callable[..., Hosted]) -> Callable[..., Answer]:
    def asked(application: Any, *given: Any, **named: Any) -> Answer:
        here = hosted(application)
        here.start(*given, **named)
        return answer_of(here.next()[1])

    return asked


@pytest.fixture
def failure(hosted: Callable[..., Hosted]) -> Callable[..., rota.RemoteError]:
    def failed(application: Any, *given: Any, **named: Any) -> rota.RemoteError:
        here = hosted(application)
        here.start(*given, **named)
        return failure_of(here.next()[1])

    return failed


def http_only(application: Any) -> Any:
    """With a lifespan that does nothing, so that the test is about requests."""

    async def both(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await application(scope, receive, send)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return both


def sending(*messages: Message) -> Any:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return application


# ---- the request ----


def test_the_scope_says_everything_of_the_request(ask: Callable[..., Answer]) -> None:
    seen: list[Message] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(START)
        await send(END)

    pairs = [[b"host", b"shop.example"], [b"cookie", b"x=1"], [b"cookie", b"y=2"]]
    ask(application, "PUT", b"/shop/caf%C3%A9%2Fx?a=%20&b", pairs, root="/shop")
    assert seen[0] == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "https",
        "path": "/shop/caf\xe9/x",
        "raw_path": b"/shop/caf%C3%A9%2Fx",
        "query_string": b"a=%20&b",
        "root_path": "/shop",
        "headers": [(b"host", b"shop.example"), (b"cookie", b"x=1"), (b"cookie", b"y=2")],
        "client": ("192.0.2.7", 40123),
        "server": ("shop.example", 8443),
        "state": {},
        "extensions": {"rota": {"request_id": "4f-7"}},
    }


def test_what_a_call_with_a_key_has_beside_its_arguments_is_put_back(hosted: Callable[..., Hosted]) -> None:
    seen: list[Message] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(START)
        await send(END)

    here = hosted(application)
    here.host.take(request("GET", b"/", [], id="")._replace(headers={"x-request-id": "4f-7", "traceparent": "00-ab"}))
    assert answer_of(here.next()[1]).status == 200
    assert seen[0]["headers"] == [(b"x-request-id", b"4f-7"), (b"traceparent", b"00-ab")]
    assert seen[0]["extensions"] == {"rota": {"request_id": "4f-7"}}


@pytest.mark.parametrize("target, path", [(b"*", "*"), (b"/%FFx", "/\ufffdx"), (b"/", "/")])
def test_odd_paths_are_shown_as_well_as_they_can_be(ask: Callable[..., Answer], target: bytes, path: str) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**END, "body": scope["path"].encode()})

    assert ask(application, "OPTIONS", target).body == path.encode()


@pytest.mark.parametrize("changes", [{"root": "/shop"}, {"client": None}, {"scheme": None, "server": 7}])
def test_a_request_that_is_none_reaches_no_application(failure: Callable[..., Any], changes: Message) -> None:
    assert failure(sending(START, END), **changes).type == "ValueError"


def test_the_body_comes_whole_and_then_nothing_until_all_is_over(hosted: Callable[..., Hosted]) -> None:
    messages: list[Message] = []
    listening: list[asyncio.Task[None]] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        messages.append(await receive())

        async def listen() -> None:
            messages.append(await receive())

        listening.extend(asyncio.create_task(listen()) for _ in range(2))
        await asyncio.sleep(0)
        assert len(messages) == 1  # whoever heard of a disconnect now would give up
        await send(START)
        await send({**END, "body": messages[0]["body"][::-1]})
        await asyncio.gather(*listening)
        messages.append(await receive())

    here = hosted(application)
    here.start("POST", b"/", [], b"abc")
    assert answer_of(here.next()[1]).body == b"cba"
    here.close()  # waits for what came after the answer
    gone = {"type": "http.disconnect"}
    assert messages == [{"type": "http.request", "body": b"abc", "more_body": False}, gone, gone, gone]


@pytest.mark.parametrize("raises", [True, False])
def test_a_task_that_an_application_leaves_behind_hears_that_all_is_over(
    hosted: Callable[..., Hosted], raises: bool
) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    left: list[asyncio.Task[None]] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()

        async def stay() -> None:
            heard.put(await receive())
            try:
                await send(START)
            except Exception as error:
                heard.put(str(error))

        left.append(asyncio.create_task(stay()))
        await asyncio.sleep(0)
        if raises:
            raise LookupError

    here = hosted(application)
    here.start()
    failure_of(here.next()[1])
    assert heard.get(timeout=PATIENCE_S) == {"type": "http.disconnect"}
    assert "was sent after the end of the answer" in heard.get(timeout=PATIENCE_S)


def test_a_body_that_comes_as_a_stream_needs_a_caller_that_streams(failure: Callable[..., rota.RemoteError]) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()

    error = failure(application, body=5)
    assert error.type == "ValueError" and "needs a caller that streams" in error.message


def test_a_listener_that_is_cancelled_takes_nothing_with_it(ask: Callable[..., Answer]) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        listener = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        listener.cancel()
        await asyncio.wait({listener})
        await send(START)
        await send({**END, "body": b"still here"})

    assert ask(application).body == b"still here"


# ---- the answer ----


def test_an_answer_in_pieces_arrives_whole(ask: Callable[..., Answer]) -> None:
    piece = bytearray(b"2")
    more = [{**END, "body": body, "more_body": True} for body in (b"1", b"", piece, memoryview(b"3"))]
    assert ask(sending(START, *more, END)) == (200, [[b"content-type", b"text/plain"]], b"123")


def test_what_is_left_away_has_its_default(ask: Callable[..., Answer]) -> None:
    assert ask(sending({"type": "http.response.start", "status": HTTPStatus.CREATED}, END)) == (201, [], b"")


def test_an_answer_is_given_before_what_the_application_does_after_it() -> None:
    gate, log = threading.Event(), []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await send(END)
        while not gate.is_set():
            await asyncio.sleep(0.001)
        log.append("mail sent")

    here = Hosted(http_only(application))
    here.start()
    assert answer_of(here.next()[1]).status == 200 and not log
    assert here.host.room == 8  # it takes no place
    here.host.stop()
    gate.set()
    here.close()
    assert log == ["mail sent"]  # the process waited for it


def test_a_failure_after_the_answer_is_told_on_stderr(
    hosted: Callable[..., Hosted], capfd: pytest.CaptureFixture[str]
) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await send(END)
        raise LookupError("no such mailbox")

    here = hosted(application)
    here.start()
    assert answer_of(here.next()[1]).status == 200
    here.close()
    told = capfd.readouterr().err
    assert "LookupError: no such mailbox" in told
    assert re.search(r"^request \S+: after its answer:\nTraceback", told, re.MULTILINE)


@pytest.mark.parametrize(
    "messages, sentence",
    [
        ([], "returned before its answer was complete"),
        ([START], "returned before its answer was complete"),
        ([START, {**END, "body": b"x", "more_body": True}], "returned before its answer was complete"),
        ([END], "http.response.body was sent before http.response.start"),
        ([START, START], "http.response.start was sent twice"),
        ([{"type": "websocket.accept"}], "'websocket.accept' is no message of an answer"),
        ([{}], "None is no message of an answer"),
        ([{**START, "status": "200 OK"}], "must be a number from 200 to 999, not '200 OK'"),
        ([{**START, "status": 103}], "must be a number from 200 to 999, not 103"),
        ([{**START, "headers": [("a", "b")]}], "must be pairs of bytes"),
        ([{**START, "headers": [(b"a",)]}], "must be pairs of bytes"),
        ([{**START, "headers": None}], "must be pairs of bytes"),
        ([{**START, "headers": [(b"a b", b"")]}], "is not the name of a header"),
        ([{**START, "headers": [(b"a", b"1\r\nb: 2")]}], "has a control character in its value"),
        ([START, {**END, "body": "text"}], "must be bytes, not str"),
        ([{**START, "headers": [(b"Content-Length", b"1")]}, END], "its Content-Length is '1', its body has 0 bytes"),
    ],
)
def test_an_answer_that_breaks_the_rules_is_refused_with_a_sentence(
    failure: Callable[..., rota.RemoteError], messages: list[Message], sentence: str
) -> None:
    error = failure(sending(*messages))
    assert error.type.endswith("BadAnswer") and sentence in error.message


def test_what_is_sent_after_the_end_is_refused(
    hosted: Callable[..., Hosted], capfd: pytest.CaptureFixture[str]
) -> None:
    here = hosted(sending(START, END, END))
    here.start()
    assert answer_of(here.next()[1]).status == 200
    here.close()
    assert "was sent after the end of the answer" in capfd.readouterr().err


@pytest.mark.parametrize("error", [LookupError("gone"), SystemExit(3), KeyboardInterrupt(), StopIteration(1)])
def test_an_application_that_raises_fails_alone(hosted: Callable[..., Hosted], error: BaseException) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        if scope["path"] == "/bad":
            raise error
        await send(END)

    here = hosted(application)
    here.start("GET", b"/bad")
    found = failure_of(here.next()[1])
    assert found.type in (type(error).__name__, "RuntimeError")  # a coroutine cannot raise StopIteration
    assert "in application" in found.traceback_text and "worker/asgi.py" not in found.traceback_text.split("\n")[1]
    here.start()
    assert answer_of(here.next()[1]).status == 200


def test_several_requests_are_served_at_once(hosted: Callable[..., Hosted]) -> None:
    together: list[str] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        together.append(scope["path"])
        while len(together) < 3:
            await asyncio.sleep(0.001)
        await send(START)
        await send({**END, "body": scope["path"].encode()})

    here = hosted(application)
    for number in (1, 2, 3):
        here.start("GET", b"/%d" % number, number=number)
    answers = dict(here.next() for _ in range(3))
    assert {number: answer_of(outcome).body for number, outcome in answers.items()} == {1: b"/1", 2: b"/2", 3: b"/3"}


def test_what_goes_on_after_its_answer_takes_no_place_and_leaves_nothing_to_the_next() -> None:
    seen: list[str] = []
    mark: ContextVar[str] = ContextVar("mark", default="clean")
    gate = asyncio.Event()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(mark.get())
        mark.set("set by another")
        await send(START)
        await send(END)
        if scope["path"] == "/first":
            await gate.wait()
            seen.append("went on")
        else:
            gate.set()

    def done(number: int, outcome: Outcome) -> None:
        answer_of(outcome)
        if number == 1:  # in the midst of its last send
            host.take(request("GET", b"/second", number=2))
        else:
            host.stop()

    host = AsyncHost(SyncHost(asgi.worker(http_only(application), "site")), starts, done, concurrency=1, threads=1)
    host.run(lambda: host.take(request("GET", b"/first", number=1)))
    assert seen == ["clean", "clean", "went on"]


@pytest.mark.parametrize("then", [asyncio.CancelledError(), LookupError("odd"), None])
def test_a_request_that_is_cancelled_may_clean_up_and_learns_that_nobody_waits(
    hosted: Callable[..., Hosted], then: BaseException | None
) -> None:
    log: list[Any] = []
    waiting = threading.Event()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        try:
            waiting.set()
            await receive()
        except asyncio.CancelledError:
            log.append("cleaned up")
            try:
                await send(START)
            except OSError as error:
                log.append(str(error))
            if then is not None:
                raise then from None

    here = hosted(application)
    here.start()
    assert waiting.wait(PATIENCE_S)
    here.host.cancel(1)
    outcome = here.next()[1]
    assert isinstance(decode_error(outcome.code, outcome.body), rota.Cancelled)
    assert log == ["cleaned up", "nobody waits for this answer any more"]


def test_any_awaitable_is_an_application(ask: Callable[..., Answer]) -> None:
    class Endpoint:
        def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
            self.send = send

        def __await__(self) -> Any:
            return sending(START, END)({}, None, self.send).__await__()

    assert ask(Endpoint).status == 200


# ---- the lifespan ----


def test_the_lifespan_goes_from_start_to_stop_in_one_task_and_its_state_is_in_each_request() -> None:
    log: list[Any] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            log.append(dict(scope["state"]))
            scope["state"]["own"] = True
            await send(START)
            return await send(END)
        assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        task = asyncio.current_task()
        log.append((await receive())["type"])
        scope["state"]["pool"] = "open"
        await send({"type": "lifespan.startup.complete"})
        log.append((await receive())["type"])
        assert asyncio.current_task() is task
        await send({"type": "lifespan.shutdown.complete"})

    here = Hosted(application)
    for _ in range(2):
        here.start()
        assert answer_of(here.next()[1]).status == 200
    here.close()
    assert log == ["lifespan.startup", {"pool": "open"}, {"pool": "open"}, "lifespan.shutdown"]


@pytest.mark.parametrize("raises", [True, False])
def test_an_application_without_a_lifespan_is_served(raises: bool, capfd: pytest.CaptureFixture[str]) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if raises:
                raise ValueError("only http here")
            return
        await send(START)
        await send(END)

    here = Hosted(application)
    here.start()
    assert answer_of(here.next()[1]).status == 200
    here.close()
    told = "the application takes no lifespan events: ValueError: only http here\n"
    assert capfd.readouterr().err == (told if raises else "")


def test_a_start_that_failed_is_a_load_error_with_the_message() -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise OSError("no database")  # as Starlette does

    here = Hosted(application, start=False)
    here.thread.join(PATIENCE_S)
    assert isinstance(here.failure[0], rota.LoadError)
    assert str(here.failure[0]) == "the application says that its start failed: no database"


def test_an_application_that_ends_the_process_in_its_start_is_a_load_error() -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        raise SystemExit("no configuration")

    here = Hosted(application, start=False)
    here.thread.join(PATIENCE_S)
    assert str(here.failure[0]) == "the application ended the process in its start: SystemExit: no configuration"


@pytest.mark.parametrize(
    "last, told",
    [
        (
            {"type": "lifespan.shutdown.failed", "message": "3 left"},
            "the application says that its stop failed: 3 left",
        ),
        (OSError("gone"), "OSError: gone"),
        ({"type": "lifespan.bye"}, "'lifespan.bye' is no message of a lifespan"),
    ],
)
def test_a_stop_that_fails_is_told_on_stderr(last: Any, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if isinstance(last, Exception):
            raise last
        await send(last)

    Hosted(application).close()
    assert told in capfd.readouterr().err


def test_a_lifespan_that_fails_while_requests_are_served_is_told_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            raise OSError("the queue is gone")
        await asyncio.sleep(0)
        told.append(capfd.readouterr().err)
        await send(START)
        await send(END)

    here = Hosted(application)
    here.start()
    assert answer_of(here.next()[1]).status == 200
    here.close()
    assert "OSError: the queue is gone" in told[0] and not capfd.readouterr().err


# ---- in a pool ----


def test_the_interface_that_the_user_insists_on_reaches_probe_and_processes(tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text("from asgi_hello import application\ndef app(*args): return application(*args)\n")
    (tmp_path / "asgi_hello.py").write_text(EXAMPLE.read_text())
    with LocalCluster(f"{app}:app", settings={"slave.interface": "asgi"}) as cluster, cluster.client() as client:
        assert client.call("shop.http", *arguments())[0] == 200


def test_a_start_that_failed_is_shown_to_who_started_it(tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    with pytest.raises(rota.LoadError, match="its start failed: no database"), LocalCluster(f"{app}:app"):
        pass


def test_a_client_reaches_the_example_through_a_real_pool() -> None:
    settings = {"slave.service": "site"}
    with LocalCluster(f"{EXAMPLE}:application", settings=settings) as cluster, cluster.client() as client:
        answer = Answer(*client.call("site.http-safe", *arguments()))
        assert answer.status == 200 and answer.body.startswith(b"hello from ASGI, serving since ")
        assert client.call("site.http", *arguments("POST", b"/", [], b"a" * 100_000))[2] == b"a" * 100_000
        assert client.call("site.http", *arguments("GET", b"/nowhere"))[0] == 404
