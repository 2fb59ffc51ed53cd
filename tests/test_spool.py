"""Spools, and answers that wait in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common.errors import Error, RemoteError
from rota.common.streams import Credit
from rota.gateway import spool as spools
from rota.gateway.core.effects import Wrong
from rota.gateway.core.head import Head
from rota.gateway.core.upload import NoRoom
from rota.gateway.request import Request
from rota.gateway.spool import Store
from rota.gateway.streamed import BadAnswer, Streamed

HEAD = msgpack.packb([200, [[b"a", b"b"]]])
BEGIN = len(HEAD).to_bytes(4, "little") + HEAD


@given(st.lists(st.binary(max_size=60), max_size=12), st.integers(0, 200), st.integers(0, 400), st.integers(0, 400))
def test_what_is_read_is_what_was_written_in_memory_or_not(
    pieces: list[bytes], memory: int, offset: int, size: int
) -> None:
    store = Store(1_000_000, memory, "/tmp")
    spool = store.open()
    for piece in pieces:
        spool.write(piece)
    data = b"".join(pieces)
    assert spool.size == store.held == len(data)
    offset = min(offset, len(data))
    size = min(size, len(data) - offset)
    assert spool.read(offset, size) == data[offset : offset + size]
    assert (store.in_memory == 0) is (len(data) > memory or not data)
    spool.close()
    spool.close()
    assert store.held == store.in_memory == 0


def test_a_file_that_was_cut_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    spool = Store(1000, 0, str(tmp_path)).open()
    spool.write(b"whole")
    os.truncate(spool._fd, 3)
    with pytest.raises(OSError, match="has lost 2 bytes"):
        spool.read(0, 5)
    spool.close()


def test_a_file_has_no_name_and_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    spool = Store(1000, 0, str(tmp_path)).open()
    spool.write(b"x")
    assert list(tmp_path.iterdir()) == [] and spool.read(0, 1) == b"x"
    spool.close()
    assert os.listdir("/proc/self/fd") == before


def test_all_spools_share_one_room_and_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    store = Store(10, 100, str(tmp_path))
    first, second = store.open(), store.open()
    first.write(b"123456")
    with pytest.raises(NoRoom):
        second.write(b"12345")
    second.write(b"1234")
    first.close()
    second.write(b"567890")
    assert second.read(0, 99) == b"1234567890"


def test_a_disk_that_takes_nothing_is_no_room(tmp_path: Path) -> None:
    store = Store(1000, 4, str(tmp_path / "missing"))
    spool = store.open()
    spool.write(b"1234")
    with pytest.raises(NoRoom):
        spool.write(b"5")
    assert spool.read(0, 9) == b"1234" and store.held == 4


def test_a_disk_that_is_full_keeps_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool, before = Store(1000, 0, str(tmp_path)).open(), os.listdir("/proc/self/fd")
    monkeypatch.setattr(spools.os, "pwrite", full)
    with pytest.raises(NoRoom):
        spool.write(b"5")
    assert os.listdir("/proc/self/fd") == before


def test_a_disk_that_takes_nothing_is_told_when_it_begins(tmp_path: Path) -> None:
    folder, told = tmp_path / "missing", []
    store = Store(1000, 0, str(folder), told.append)
    sentence = f"there is no room for large bodies in {folder} (http.spool_dir): No such file or directory"
    for times in (1, 2):
        for _ in range(2):
            with pytest.raises(NoRoom):
                store.open().write(b"5")
        assert told == [sentence] * times
        folder.mkdir()
        spool = store.open()
        spool.write(b"5")
        spool.close()
        folder.rmdir()


def test_the_memory_of_all_spools_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MEMORY_MAX", 10)
    store = Store(1000, 8, str(tmp_path))
    each = [store.open() for _ in range(4)]
    for spool in each:
        spool.write(b"1234567")
    assert store.in_memory == 7 and [spool.read(0, 7) for spool in each] == [b"1234567"] * 4
    each[0].close()
    each[1].write(b"8")  # there would be room for it
    assert store.in_memory == 0 and each[1].read(0, 8) == b"12345678"


def test_a_disk_that_gives_less_than_it_was_asked_for_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, pread = Store(1000, 0, str(tmp_path)).open(), os.pread
    spool.write(b"whole")
    monkeypatch.setattr(spools.os, "pread", lambda fd, size, offset: pread(fd, min(size, 2), offset))
    assert spool.read(0, 5) == b"whole"
    spool.close()


# ---- answers on their way -------------------------------------------------------------------------------------------


class Reader:
    """A request and its connection: what is given to it, and whether it takes more, which it does `at_once` times."""

    def __init__(self) -> None:
        self.connection = self
        self.takes = True
        self.at_once = 1_000_000
        self.got = b""
        self.took = 0
        self.over: object = None

    def taken(self, size: int) -> None:
        self.took += size

    def begin(self, status: int, headers: list[Any]) -> None:
        assert (status, headers) == (200, [[b"a", b"b"]])

    def piece(self, data: bytes, now: float) -> None:
        assert self.over is None
        self.got += data
        self.at_once -= 1
        self.takes = self.at_once > 0

    def ended(self) -> None:
        self.over = "ended"

    def broke_off(self, error: Error) -> None:
        self.over = error


def answer(store: Store) -> tuple[Reader, Streamed]:
    reader = Reader()
    return reader, Streamed(reader, store)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_its_head_may_come_in_any_pieces(size: int) -> None:
    reader, streamed = answer(Store(100, 100, "/tmp"))
    data = BEGIN + b"hello"
    for at in range(0, len(data), size):
        streamed.came(data[at : at + size], at + size < len(data))
    assert (reader.got, reader.took, reader.over) == (b"hello", len(data), "ended")


NO_HEADS = [(0, []), (-200, []), (200.0, []), (True, []), (200, {})]


@pytest.mark.parametrize(
    "head",
    [b"\xff\xff\xff\x7f", b"\1\0\0\0\1", b"\1\0\0\0\xc1", b"\2\0\0\0\x91\1"]
    + [len(packed).to_bytes(4, "little") + packed for packed in map(msgpack.packb, NO_HEADS)],
)
def test_a_head_that_is_none_is_told_before_anything_is_sent(head: bytes) -> None:
    reader, streamed = answer(Store(100, 100, "/tmp"))
    with pytest.raises(BadAnswer):
        streamed.came(head, True)
    assert reader.got == b""


def test_a_slow_reader_has_its_answer_in_a_spool_and_the_process_goes_on() -> None:
    store = Store(1000, 10, "/tmp")
    reader, streamed = answer(store)
    streamed.came(BEGIN + b"first,", True)
    reader.takes = False
    for _ in range(50):
        streamed.came(b"more,", True)
    streamed.came(b"last", False)
    streamed.finished(None)
    assert reader.got == b"first," and reader.took == len(BEGIN) + 6 + 50 * 5 + 4 and reader.over is None
    reader.takes = True
    streamed.written()
    assert reader.got == b"first," + b"more," * 50 + b"last" and reader.over == "ended"
    assert store.held == 0


def test_where_spools_are_full_the_process_waits_for_the_reader_and_the_order_stays() -> None:
    store = Store(40, 40, "/tmp")
    store.open().write(bytes(30))
    reader, streamed = answer(store)
    reader.takes = False
    streamed.came(BEGIN + b"123456", True)
    streamed.came(b"7890ab", True)
    streamed.came(b"c", True)  # there would be room for it
    assert reader.took == len(BEGIN) + 6
    reader.takes = True
    streamed.written()
    assert (reader.got, reader.took) == (b"1234567890abc", len(BEGIN) + 13)
    streamed.came(b"", False)
    assert reader.over == "ended"


def test_what_comes_before_it_is_told_that_there_is_room_is_not_sent_before_what_waits() -> None:
    store = Store(40, 40, "/tmp")
    store.open().write(bytes(40))
    reader, streamed = answer(store)
    reader.takes, reader.at_once = False, 1
    streamed.came(BEGIN + b"first,", True)
    streamed.came(b"second,", True)
    reader.takes = True
    streamed.written()
    assert reader.got == b"first,"
    reader.takes, reader.at_once = True, 9
    streamed.came(b"third", True)
    assert reader.got == b"first,second,third"


def test_no_answer_takes_all_the_room_of_the_others() -> None:
    store = Store(1000, 10, "/tmp")
    reader, streamed = answer(store)
    reader.takes = False
    streamed.came(BEGIN, True)
    for _ in range(100):
        streamed.came(b"0123456789", True)
    assert 250 <= store.held <= 260 and reader.took == len(BEGIN) + store.held
    reader.takes = True
    streamed.written()
    assert len(reader.got) == 1000 and reader.took == len(BEGIN) + 1000 and store.held == 0


def test_a_disk_that_fails_under_an_answer_breaks_it_off(tmp_path: Path) -> None:
    store = Store(1000, 0, str(tmp_path))
    reader, streamed = answer(store)
    reader.takes = False
    streamed.came(BEGIN + b"whole", True)
    assert streamed._spool is not None
    os.truncate(streamed._spool._fd, 3)
    reader.takes = True
    streamed.written()
    assert isinstance(reader.over, OSError) and reader.got == b"" and store.held == 0


def test_what_came_before_a_failure_is_sent_and_then_it_breaks_off() -> None:
    reader, streamed = answer(Store(100, 100, "/tmp"))
    reader.takes = False
    streamed.came(BEGIN + b"half", True)
    error = RemoteError("in the middle")
    streamed.finished(error)
    assert reader.over is None
    reader.takes = True
    streamed.written()
    assert reader.got == b"half" and reader.over is error


def test_an_answer_that_came_to_no_end_breaks_off_though_its_call_succeeded() -> None:
    reader, streamed = answer(Store(100, 100, "/tmp"))
    streamed.came(BEGIN + b"half", True)
    streamed.finished(None)
    assert isinstance(reader.over, Error) and str(reader.over) == "the answer came to no end"


def test_an_end_before_the_head_is_for_the_call_to_tell() -> None:
    reader, streamed = answer(Store(100, 100, "/tmp"))
    streamed.came(BEGIN[:3], False)
    assert reader.over is None and not streamed.status


def test_whose_client_goes_while_its_head_is_sent_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(100, 100, "/tmp")
    reader, streamed = answer(store)
    reader.takes = False
    monkeypatch.setattr(reader, "begin", lambda *_: streamed.close())
    streamed.came(BEGIN + b"half", False)
    assert reader.got == b"" and store.held == 0 and reader.over is None


def test_whose_client_is_gone_leaves_nothing() -> None:
    store = Store(100, 100, "/tmp")
    reader, streamed = answer(store)
    reader.takes = False
    streamed.came(BEGIN + b"half", False)
    streamed.close()
    reader.takes = True
    streamed.written()
    assert reader.got == b"" and store.held == 0 and reader.over is None


# ---- requests that end badly ----------------------------------------------------------------------------------------


class Asking:
    """A gateway, its client and a connection at once, for one request: what each of them hears."""

    class peer:
        client = ("127.0.0.1", 1)

    def __init__(self) -> None:
        self.client = self
        self.request: Request | None = None
        self.takes = True
        self.store = Store(1000, 1000, "/tmp")
        self.lines: list[tuple[int, bool]] = []
        self.heard: list[str] = []
        self.faults: list[int] = []
        self.taken = self.begin = self.piece = lambda *_: None

    def finished(self, request: Request, status: int, size: int, broken: bool = False) -> None:
        self.lines.append((status, broken))

    def fault(self, request: Request, status: int, error: BaseException) -> None:
        self.faults.append(status)

    def withdraw(self, request: Request) -> None:
        self.heard.append("withdrawn")

    def cut(self) -> None:
        self.heard.append("cut")

    def end(self, now: float) -> bool:
        request, self.request = self.request, None
        assert request is not None
        request.wrong(Wrong("the answer is shorter than its Content-Length"))
        return False


def asked(asking: Asking) -> Request:
    head = Head("GET", b"/", "1.1", [], b"a", None, False, True, False)
    request = asking.request = Request(asking, asking, head, 0.0, None)  # type: ignore[arg-type]
    return request


def test_an_answer_that_turns_out_short_has_one_line_in_the_access_log() -> None:
    asking = Asking()
    asked(asking).came(BEGIN + b"half", False)
    assert (asking.lines, asking.faults, asking.heard) == ([(200, True)], [200], ["withdrawn"])


def test_a_disk_that_fails_under_an_upload_ends_that_request_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError("the disk is gone")

    asking = Asking()
    request = asked(asking)
    spool = Store(1000, 1, str(tmp_path)).open()
    spool.write(b"on the disk")
    request.brings(spool)
    monkeypatch.setattr(spools.os, "pread", fails)
    assert request.out is not None
    request.out.credited(Credit(100, 0, True))
    assert request.out.next() is None and asking.heard == ["withdrawn", "cut"]


@pytest.mark.parametrize("where", ["answer", "begin", "piece", "likeness"])
def test_what_nobody_has_thought_of_costs_its_own_connection_only(
    where: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is found among the answers of others. What is planted: none is known that does."""

    def fails(*_: object) -> None:
        raise RuntimeError("nobody has thought of it")

    asking = Asking()
    request = asked(asking)
    if where == "likeness":
        request.plain = SimpleNamespace(likeness=None, answered=fails)  # type: ignore[assignment]
        request.returned(b"")
    elif where == "answer":
        monkeypatch.setattr(asking, "answer", fails, raising=False)
        request.finish([200, [], b""], None)
    else:
        monkeypatch.setattr(asking, where, fails)
        asking.takes = False
        request.came(BEGIN + b"half", True)
        asking.takes = True
        request.written()
    assert asking.heard == ["withdrawn", "cut"] and "nobody has thought of it" in capfd.readouterr().err


def test_a_request_whose_answer_has_no_head_yet_has_not_begun_to_be_answered() -> None:
    asking = Asking()
    request = asked(asking)
    request.came(BEGIN[:3], True)
    request.end_by_now()
    assert asking.heard == []
    request.abandon()
    assert asking.lines == [(499, False)]


def test_whose_client_goes_away_gives_back_the_room_of_his_answer() -> None:
    asking = Asking()
    asking.takes = False
    request = asked(asking)
    request.came(BEGIN + b"half", True)
    assert asking.store.held == 4
    request.abandon()
    assert asking.store.held == 0 and asking.lines == [(200, True)]
