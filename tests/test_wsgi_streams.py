"""WSGI answers and uploads that are streamed, with the other end played by the test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any

import msgpack
import pytest
from hosting_rig import answer_of, arguments, failure_of, request

from rota.common.body import encode_call
from rota.common.errors import OK
from rota.common.limits import INLINE_MAX
from rota.worker import wsgi
from rota.worker.core.streams import Abandoned
from rota.worker.hosting import Outcome, SyncHost
from rota.worker.http_service import BadAnswer

Start = Callable[..., Any]


class Other:
    """The caller."""

    def __init__(self, upload: Iterable[bytes] = (), gone_after: int = 1000) -> None:
        self.upload = iter(upload)
        self.sent: list[bytes] = []
        self.finished = False
        self.gone_after = gone_after

    def read(self) -> bytes:
        return next(self.upload, b"")

    def write(self, data: bytes) -> None:
        if len(self.sent) >= self.gone_after:
            raise Abandoned("nobody waits for this any more")
        self.sent.append(data)

    def finish(self) -> None:
        self.finished = True

    @property
    def opening(self) -> list[Any]:
        found: list[Any] = msgpack.unpackb(self.sent[0][4 : 4 + self._size])
        return found

    @property
    def blocks(self) -> list[bytes]:
        return [self.sent[0][4 + self._size :], *self.sent[1:]]

    @property
    def _size(self) -> int:
        return int.from_bytes(self.sent[0][:4], "little")


def run(application: Any, other: Other, method: str = "GET", size: int | None = None) -> Outcome:
    host = SyncHost(wsgi.worker(application, "site"), stream_of=lambda delivery: other)
    given = list(arguments(method))
    if size is not None:
        given[3] = size
    return host.run(request()._replace(body=encode_call(tuple(given), {})))


def saying(result: Any, length: int | None = None, status: str = "200 OK") -> Any:
    def application(environ: dict[str, Any], start: Start) -> Any:
        start(status, [("Content-Length", str(length))] if length is not None else [])
        return result

    return application


@pytest.mark.parametrize(
    "result, length",
    [([b"a", b"b"], None), ((b"ab",), None), (iter([b"", b"ab"]), 2), ([b"x" * INLINE_MAX], None), (iter([]), None)],
)
def test_what_is_small_and_all_there_is_one_message(result: Any, length: int | None) -> None:
    other = Other()
    answer = answer_of(run(saying(result, length), other))
    assert answer.status == 200 and other.sent == []


@pytest.mark.parametrize(
    "result, length, sizes",
    [
        (iter([b"a", b"", b"bc"]), None, [1, 2]),
        ([b"x" * INLINE_MAX, b"y"], None, [INLINE_MAX + 1]),
        ([b"x" * (INLINE_MAX + 1)], None, [INLINE_MAX + 1]),
        (iter([b"x" * 1000] * 300), 300_000, [1000] * 300),
        (iter([b"a", b"bc"]), 3, [1, 2]),  # the second may take an hour
    ],
)
def test_of_anything_else_each_block_goes_out_by_itself(result: Any, length: int | None, sizes: list[int]) -> None:
    other = Other()
    outcome = run(saying(result, length), other)
    assert outcome.code == OK and other.finished
    assert other.opening[0] == 200 and [len(block) for block in other.blocks] == sizes


def test_a_block_is_gone_before_the_next_is_asked_for() -> None:
    other = Other()
    seen = []

    def blocks() -> Iterable[bytes]:
        for number in range(3):
            seen.append(len(other.sent))
            yield b"%d" % number

    run(saying(blocks()), other)
    assert seen == [0, 1, 2]


def test_write_sends_at_once() -> None:
    other = Other()

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        write = start("200 OK", [])
        write(b"one")
        assert other.blocks == [b"one"]
        return [b"two"]

    run(application, other)
    assert other.blocks == [b"one", b"two"] and other.finished


def test_after_the_first_byte_exc_info_raises_again() -> None:
    other = Other()

    def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        yield b"half"
        try:
            raise KeyError("in the middle")
        except KeyError:
            start("500 Oops", [], sys.exc_info())
        yield b"never"

    assert "in the middle" in failure_of(run(application, other)).message
    assert other.blocks == [b"half"] and not other.finished


def test_a_body_that_is_shorter_than_announced_does_not_end_well() -> None:
    other = Other()
    error = failure_of(run(saying(iter([b"x" * 1000] * 300), 300_001), other))
    assert "its Content-Length is 300001, its body has 300000 bytes" in error.message
    assert len(other.blocks) == 300 and not other.finished


@pytest.mark.parametrize("length, asked", [(2500, 3), (2000, 3), (1001, 2), (5, 1)])
def test_what_is_more_than_was_announced_is_not_asked_for(
    length: int, asked: int, capsys: pytest.CaptureFixture[str]
) -> None:
    other, seen = Other(), []

    def blocks() -> Iterable[bytes]:
        while True:
            seen.append(True)
            yield b"x" * 1000

    assert run(saying(blocks(), length), other).code == OK
    assert b"".join(other.blocks) == b"x" * length and other.finished and len(seen) == asked
    said = capsys.readouterr().err
    assert "request 4f-7: after its answer" in said and f"its Content-Length is {length}" in said


def test_who_writes_more_than_was_announced_is_told() -> None:
    other = Other()

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        write = start("200 OK", [("Content-Length", "5")])
        write(b"abc")
        with pytest.raises(BadAnswer, match="its Content-Length is 5, its body has 6 bytes"):
            write(b"def")
        return [b"more"]

    assert run(application, other).code == OK
    assert other.blocks == [b"abc", b"de"] and other.finished


def test_a_list_that_is_longer_than_announced_is_refused_and_nothing_sent() -> None:
    other = Other()
    error = failure_of(run(saying([b"abc", b"d"], 2), other))
    assert "its Content-Length is '2', its body has 4 bytes" in error.message and other.sent == []


@pytest.mark.parametrize("announced, streamed", [(65_537, False), (100, False), (300_000, True)])
def test_of_a_file_only_what_was_announced_is_sent(announced: int, streamed: bool) -> None:
    other, content = Other(), b"0123456789" * 40_000

    def application(environ: dict[str, Any], start: Start) -> Any:
        start("206 Partial Content", [("Content-Length", str(announced))])
        file = BytesIO(content)
        file.seek(5)
        return environ["wsgi.file_wrapper"](file)

    outcome = run(application, other)
    body = b"".join(other.blocks) if streamed else answer_of(outcome).body
    assert body == content[5 : 5 + announced] and other.finished is streamed


@pytest.mark.parametrize("blocks, streamed", [([b"a"], False), ([b"a", b"b"], True)])
def test_what_close_raises_is_told_and_the_answer_stays_whole(
    blocks: list[bytes], streamed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter(blocks)

        def close(self) -> None:
            raise OSError("the database is gone")

    other = Other()
    outcome = run(saying(Body(), 1 if len(blocks) == 1 else None), other)
    assert outcome.code == OK and other.finished is streamed
    assert (b"".join(other.blocks) if streamed else answer_of(outcome).body) == b"".join(blocks)
    said = capsys.readouterr().err
    assert "request 4f-7: in close" in said and "the database is gone" in said


def test_what_broke_the_answer_is_told_whatever_close_raises(capsys: pytest.CaptureFixture[str]) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"half"
            raise KeyError("in the middle")

        def close(self) -> None:
            raise OSError("the database is gone")

    other = Other()
    assert "in the middle" in failure_of(run(saying(Body()), other)).message and not other.finished
    assert "the database is gone" in capsys.readouterr().err


@pytest.mark.parametrize("method, status", [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_where_there_is_no_body_the_headers_are_the_answer(method: str, status: str) -> None:
    other, asked = Other(), []

    def blocks() -> Iterable[bytes]:
        while True:
            asked.append(True)
            yield b"block"

    answer = answer_of(run(saying(blocks(), status=status), other, method))
    assert answer.body == b"" and other.sent == [] and len(asked) == 1


def test_where_there_is_no_body_nothing_that_is_written_is_sent() -> None:
    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        write = start("200 OK", [("Content-Length", "4")])
        write(b"ab")
        write(b"cd")
        return []

    other = Other()
    assert answer_of(run(application, other, "HEAD")).headers == [[b"Content-Length", b"4"]]
    assert not other.sent


def test_whose_caller_is_gone_hears_it_at_its_next_block_and_is_closed() -> None:
    other, ends = Other(gone_after=2), []

    def blocks() -> Iterable[bytes]:
        try:
            while True:
                yield b"block"
        except GeneratorExit:
            ends.append("closed")
            raise

    assert "Abandoned" in failure_of(run(saying(blocks()), other)).type
    assert ends == ["closed"] and len(other.sent) == 2


def test_a_file_goes_in_large_blocks() -> None:
    other = Other()

    def application(environ: dict[str, Any], start: Start) -> Any:
        start("200 OK", [])
        return environ["wsgi.file_wrapper"](BytesIO(bytes(150_000)), 8192)

    run(application, other)
    assert [len(block) for block in other.blocks] == [65_536, 65_536, 18_928]


def test_an_upload_is_read_as_a_file() -> None:
    content = b"first line\nsecond line\nthird" + bytes(1000) + b"\nrest\n"
    found: dict[str, Any] = {}

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        body = environ["wsgi.input"]
        found["length"] = environ["CONTENT_LENGTH"]
        found["lines"] = [body.readline(), body.readline(6), body.read(5), *body.readlines(), body.read(), body.read(3)]
        start("200 OK", [])
        return []

    pieces = [content[at : at + 7] for at in range(0, len(content), 7)]
    assert run(application, Other(pieces), "POST", len(content)).code == OK
    assert found["length"] == str(len(content))
    first, part, five, *rest = found["lines"]
    assert (first, part, five) == (b"first line\n", b"second", b" line")
    assert b"".join(rest) == content[22:] and rest[-2:] == [b"", b""]


def test_an_upload_that_ends_before_its_length_is_an_error() -> None:
    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        start("200 OK", [])
        return [environ["wsgi.input"].read()]

    error = failure_of(run(application, Other([b"half"]), "POST", 10))
    assert "6 bytes before its length" in error.message


def test_of_a_piece_that_is_larger_than_was_asked_for_the_rest_comes_next() -> None:
    found: list[bytes] = []

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        found.extend(environ["wsgi.input"].raw.read(2) for _ in range(4))
        start("200 OK", [])
        return []

    assert run(application, Other([b"abcd", b"ef"]), "POST", 6).code == OK
    assert found == [b"ab", b"cd", b"ef", b""]
