from __future__ import annotations

import dis
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from types import FrameType
from typing import Any

import pytest

from rota.worker import page as module
from rota.worker.page import (
    BOOTING,
    DONE,
    FENCE_EPOCH,
    FLOOR,
    HANDLED,
    PHASE,
    READY,
    REFUSED,
    REPLY_MAX,
    RUNNING,
    STARTED_UPTO,
    Page,
    obey,
    obeyed,
)

ORIGIN = struct.pack("<16sQ", b"s" * 16, 7)


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page.create()
    yield made
    made.close()


def test_a_child_that_inherits_the_descriptor_sees_words_and_is_seen(page: Page) -> None:
    page.words[FLOOR] = 1 << 63
    child = (
        "import sys; from rota.worker.page import *\n"
        "page = Page(int(sys.argv[1])); page.words[STARTED_UPTO] = page.words[FLOOR] + 5"
    )
    subprocess.run([sys.executable, "-c", child, str(page.fd)], pass_fds=[page.fd], check=True)
    assert page.words[STARTED_UPTO] == (1 << 63) + 5


def test_a_page_has_none_of_the_numbers_that_its_child_has_for_something_else() -> None:
    """Where an application has closed its stdin, the next descriptor is 0."""
    made = "import os; from rota.worker.page import Page; os.close(0); page = Page.create(); print(page.fd)"
    found = subprocess.run([sys.executable, "-c", made], stdout=subprocess.PIPE, check=True)
    assert int(found.stdout) > 2


def test_a_word_is_written_with_a_single_store(page: Page) -> None:
    """A reader in another process must never see half of a word, so no writer may go byte by byte."""
    reader = (
        "import sys; from rota.worker.page import *\n"
        "page = Page(int(sys.argv[1])); words = page.words; words[OBEY] = 1\n"
        "while not words[STOP]:\n"
        "    value = words[FLOOR]\n"
        "    if value not in (0, (1 << 64) - 1): sys.exit(3)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", reader, str(page.fd)], pass_fds=[page.fd])
    while not page.words[module.OBEY]:
        assert child.poll() is None
    for _ in range(100_000):
        page.words[FLOOR] = (1 << 64) - 1
        page.words[FLOOR] = 0
    page.words[module.STOP] = 1
    assert child.wait(20) == 0


def test_a_row_stands_before_started_upto_names_it_and_the_fence_is_read_after_it() -> None:
    """The order is the proof that a delivery above started_upto did not start."""
    order = [
        each.argval
        for each in dis.get_instructions(Page.start)
        if each.argval in ("_pack_row", "STARTED_UPTO", "FLOOR", "FENCE_EPOCH")
    ]
    assert order == ["_pack_row", "STARTED_UPTO", "FLOOR", "FENCE_EPOCH"]


def test_a_started_delivery_can_be_read_from_its_row(page: Page) -> None:
    assert page.start(3, 41, 1000, 2000, ORIGIN, epoch=2)
    (row,) = page.used_rows()
    assert row == (41, RUNNING, 1000, 2000, b"s" * 16, 7, 2)
    assert page.words[STARTED_UPTO] == 41
    page.done(3, b"")
    assert page.used_rows()[0].state == DONE
    assert page.words[HANDLED] == 1
    assert page.running() == []


@pytest.mark.parametrize(("word", "value"), [(FLOOR, 42), (FENCE_EPOCH, 3)])
def test_a_delivery_below_floor_or_fence_is_noted_as_refused(page: Page, word: int, value: int) -> None:
    page.words[word] = value
    assert not page.start(0, 41, 1000, 0, ORIGIN, epoch=2)
    assert [row.state for row in page.report()] == [REFUSED]


def test_a_row_that_is_being_written_is_not_believed(page: Page) -> None:
    page.start(0, 1, 1000, 2000, ORIGIN, epoch=2)
    page.words[module.FIRST_ROW] = 2  # its number comes first; started_upto is still 1
    assert page.used_rows() == []


def test_a_small_reply_stands_in_the_page_until_its_row_is_used_again(page: Page) -> None:
    last = page.rows - 1
    for place, reply in ((0, b"short"), (1, b"x" * (module.REPLY_MAX + 1)), (last, b"x" * module.REPLY_MAX)):
        page.start(place, place + 1, 1000, 0, ORIGIN, epoch=2)
        page.done(place, reply)
    page.fail("é" * 2000)
    assert {row.number: row.reply for row in page.report()} == {1: b"short", 2: b"", last + 1: b"x" * module.REPLY_MAX}
    page.start(0, last + 2, 1000, 0, ORIGIN, epoch=2)
    assert page.report()[0].reply == b"", "this one still runs"
    page.done(0, b"y" * 5000)
    assert page.report()[0].reply == b""


@pytest.mark.parametrize("size", [0, 1, 248, 249, 504, 505, REPLY_MAX - 1, REPLY_MAX])
def test_a_reply_is_read_as_it_was_written_whatever_stood_there_before(page: Page, size: int) -> None:
    for number, reply in enumerate((b"o" * REPLY_MAX, b"n" * size), 1):
        page.start(0, number, 1000, 0, ORIGIN, epoch=2)
        page.start(1, number, 1000, 0, ORIGIN, epoch=2)
        page.done(1, b"its neighbour")
        page.done(0, reply)
    assert [row.reply for row in page.report()] == [b"n" * size, b"its neighbour"]


def test_wherever_a_process_is_killed_its_row_has_its_own_reply_or_none(page: Page) -> None:
    """Its page is looked at after each step of the interpreter: any of them may be its last."""
    reports: list[list[tuple[int, int, bytes]]] = []

    def step(frame: FrameType, *_: object) -> Callable[..., Any]:
        frame.f_trace_opcodes = True
        reports.append([(row.number, row.state, row.reply) for row in page.report()])
        return step

    codes = (Page.start.__code__, Page.done.__code__)
    before = sys.gettrace()
    sys.settrace(lambda frame, *_: step(frame) if frame.f_code in codes else None)
    try:
        for number, reply in enumerate((b"the first", b"2nd", b"too large" * 500, b"4th"), 1):
            page.start(0, number, 1000, 0, ORIGIN, epoch=2)
            page.done(0, reply)
    finally:
        sys.settrace(before)
    assert [report for report, _ in groupby(reports)] == [
        [],
        *([(1, RUNNING, b"")], [(1, DONE, b"the first")], []),
        *([(2, RUNNING, b"")], [(2, DONE, b"2nd")], []),
        *([(3, RUNNING, b"")], [(3, DONE, b"")], []),
        *([(4, RUNNING, b"")], [(4, DONE, b"4th")]),
    ]


def test_a_reply_that_is_read_while_its_row_is_used_again_is_not_taken_for_it(page: Page) -> None:
    """An agent reads the page of a process that goes on."""
    page.start(0, 1, 1000, 0, ORIGIN, epoch=2)
    page.done(0, b"the first")
    page.start(1, 2, 1000, 0, ORIGIN, epoch=2)
    page.done(1, b"the second")
    assert [(row.number, row.reply) for row in page.replies(2)] == [(2, b"the second")]
    (_, read), _ = page._used()  # as it was
    page.start(0, 3, 1000, 0, ORIGIN, epoch=2)
    assert page._reply(0, read) == b""
    page.done(0, b"the third")
    assert page._reply(0, read) == b""
    assert [row.number for row in page.replies(1)] == [3, 2]


def test_a_page_that_an_older_agent_made_has_no_room_for_replies() -> None:
    made = Page.create()
    os.ftruncate(made.fd, (module.FIRST_ROW + made.rows * module.ROW_WORDS + module.CAUSE_WORDS) * 8)
    older = Page(os.dup(made.fd))
    older.start(0, 1, 1000, 0, ORIGIN, epoch=2)
    older.done(0, b"short")
    older.fail("why")
    assert ([row.reply for row in older.report()], older.failure()) == ([b""], "why")
    assert (made.reply_max, older.reply_max) == (module.REPLY_MAX, 0), "what it has no room for is not to wait"
    older.close()
    made.close()


def test_why_it_does_not_start_stands_behind_the_rows_and_goes_with_the_incarnation(page: Page) -> None:
    last = page.rows - 1
    page.fail("\nValidationError: 1 error for Settings\n  see https://example.org/errors")
    assert page.failure() == "ValidationError: 1 error for Settings"
    page.start(last, 1, 1000, 0, ORIGIN, epoch=2)
    page.fail("é" * 2000)
    assert page.failure() == "é" * 512 and [row.number for row in page.used_rows()] == [1]
    page.words[PHASE] = READY
    page.clear()
    assert page.failure() == "" and page.rows == last + 1 and page.words[PHASE] == BOOTING
    assert os.fstat(page.fd).st_blocks * 512 < REPLY_MAX * last, "memory is for replies that there were"


def test_a_word_says_whom_to_obey_and_at_which_port() -> None:
    backends = ["tcp://a:7702", "tcp://[::1]:7702"]
    assert obeyed(backends, 0) == "tcp://a:7702", "as it was when the process began"
    assert obeyed(backends, obey(1, "tcp://[::1]:65535")) == "tcp://[::1]:65535"


def test_a_foreign_descriptor_is_no_page() -> None:
    fd = os.memfd_create("something")
    os.ftruncate(fd, 4096)
    with pytest.raises(ValueError, match="no page"):
        Page(fd)
