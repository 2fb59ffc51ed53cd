"""ASGI answers and uploads that are streamed, with the other end played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgpack
import pytest
from hosting_rig import PATIENCE_S, answer_of, arguments, failure_of, request, starts

from rota.common.body import encode_call
from rota.common.errors import OK
from rota.common.limits import INLINE_MAX
from rota.worker import asgi
from rota.worker.async_hosting import AsyncHost
from rota.worker.core.streams import Abandoned
from rota.worker.hosting import Outcome, SyncHost

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GONE = {"type": "http.disconnect"}


class Other:
    """The caller."""

    def __init__(self, upload: Iterable[bytes] = ()) -> None:
        self.upload = iter(upload)
        self.sent: list[bytes] = []
        self.finished = self.abandoned = self.leaving = False
        self._waiting: list[asyncio.Future[None]] = []

    async def read(self) -> bytes:
        for piece in self.upload:
            return piece
        raise Abandoned("nobody waits for this any more")

    async def write(self, data: bytes) -> None:
        self.sent.append(data)

    async def finish(self) -> None:
        self.finished = True

    def changed(self) -> asyncio.Future[None]:
        self._waiting.append(asyncio.get_running_loop().create_future())
        return self._waiting[-1]

    def wake(self) -> None:
        while self._waiting:
            self._waiting.pop().set_result(None)

    @property
    def body(self) -> bytes:
        sent = b"".join(self.sent)
        size = int.from_bytes(sent[:4], "little")
        assert msgpack.unpackb(sent[4 : 4 + size])[0] == 200
        return sent[4 + size :]


def run(application: Any, other: Other, method: str = "GET", size: int | None = None) -> Outcome:
    outcomes: list[Outcome] = []

    async def http_only(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.wait_for(application(receive, send), PATIENCE_S)

    def done(number: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        host.stop()

    given = list(arguments(method))
    if size is not None:
        given[3] = size
    sync = SyncHost(asgi.worker(http_only, "site"), stream_of=lambda delivery: other)
    host = AsyncHost(sync, starts, done, concurrency=1, threads=1)
    host.run(lambda: host.take(request()._replace(body=encode_call(tuple(given), {}))))
    (outcome,) = outcomes
    return outcome


def start(length: int | None = None) -> Message:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def block(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def sending(*messages: Message) -> Any:
    async def application(receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return application


def test_an_upload_comes_in_pieces_and_what_is_behind_it_waits_for_the_end() -> None:
    heard: list[Any] = []

    async def application(receive: Receive, send: Send) -> None:
        heard.extend([await receive(), await receive()])
        listener = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not listener.done(), "who heard of a disconnect now would give up"
        await send(start())
        await send(block(b"ok", more=False))
        heard.extend([await listener, await receive()])

    assert answer_of(run(application, Other([b"ab", b"c"]), size=3)).body == b"ok"
    first, second = (
        {"type": "http.request", "body": body, "more_body": more} for body, more in ((b"ab", 1), (b"c", 0))
    )
    assert heard == [first, second, GONE, GONE]


def test_once_all_is_said_no_more_of_an_upload_is_asked_for() -> None:
    heard: list[Message] = []

    async def application(receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(block(b"", more=False))
        heard.append(await receive())

    assert run(application, Other([b"ab", b"c"]), size=3).code == OK
    assert heard == [GONE]


@pytest.mark.parametrize("upload", [[b"ab"], [b"ab", b""]])
def test_an_upload_that_ends_before_its_length_is_a_disconnect(upload: list[bytes]) -> None:
    heard: list[Any] = []

    async def application(receive: Receive, send: Send) -> None:
        heard.extend([await receive(), await receive()])
        await send(start())
        await send(block(b"", more=False))

    run(application, Other(upload), size=3)
    assert heard[0]["more_body"] and heard[1] == GONE


@pytest.mark.parametrize("begun", [True, False])
def test_who_listens_hears_that_nobody_waits_and_once_its_answer_has_begun_that_the_process_is_to_stop(
    begun: bool,
) -> None:
    other = Other()

    async def application(receive: Receive, send: Send) -> None:
        await receive()
        if begun:
            await send(start())
            await send(block(b"x"))
        listener = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not listener.done()
        other.leaving = True
        other.wake()
        await asyncio.sleep(0.001)
        assert listener.done() is begun
        other.abandoned = True
        other.wake()
        assert await listener == GONE
        raise LookupError("given up")

    assert failure_of(run(application, other)).message == "given up"


def test_each_block_goes_out_by_itself() -> None:
    other = Other()
    outcome = run(sending(start(3), block(b"ab"), block(b""), block(b"c"), block(b"", more=False)), other)
    assert outcome.code == OK and other.finished
    assert other.body == b"abc" and len(other.sent) == 2


def test_what_is_large_is_streamed_too_and_what_is_not_is_one_message() -> None:
    for size, streamed in ((INLINE_MAX, False), (INLINE_MAX + 1, True)):
        other = Other()
        outcome = run(sending(start(), block(bytes(size), more=False)), other)
        assert outcome.code == OK and other.finished is streamed is bool(other.sent)


def test_what_has_no_body_is_one_message_and_the_rest_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    other, heard = Other(), []

    async def application(receive: Receive, send: Send) -> None:
        await send(start(5))
        await send(block(b"ab"))
        try:
            await send(block(b"cde", more=False))
        except OSError as error:
            heard.append(str(error))
            raise

    assert answer_of(run(application, other, method="HEAD")).headers == [[b"content-length", b"5"]]
    assert not other.sent and heard == ["nobody waits for this answer any more"]
    assert not capsys.readouterr().err


def test_a_body_that_is_shorter_than_announced_does_not_end_well() -> None:
    other = Other()
    error = failure_of(run(sending(start(3), block(b"ab"), block(b"", more=False)), other))
    assert "its Content-Length is 3, its body has 2 bytes" in error.message and not other.finished


def test_of_what_is_longer_than_announced_nothing_is_sent_if_that_is_known_at_once() -> None:
    other = Other()
    error = failure_of(run(sending(start(3), block(b"abcd")), other))
    assert "its Content-Length is 3, its body has 4 bytes" in error.message and not other.sent


@pytest.mark.parametrize("more", [True, False])
def test_what_is_more_than_was_announced_is_cut_off_and_told(more: bool, capsys: pytest.CaptureFixture[str]) -> None:
    other = Other()
    assert run(sending(start(3), block(b"ab"), block(b"cd", more=more)), other).code == OK
    assert other.body == b"abc" and other.finished
    assert "its Content-Length is 3, its body has 4 bytes" in capsys.readouterr().err
