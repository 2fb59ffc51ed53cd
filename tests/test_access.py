"""The access log of a gateway."""

import errno
import json
import os
from pathlib import Path
from select import PIPE_BUF

from rota.common.settings import COMMON, JSON, OFF
from rota.gateway.access import FLUSH_BYTES, KEPT_BYTES, AccessLog, Entry

ENTRY = Entry(
    "1.2.3.4", "GET", b'/a"b', "1.1", 200, 12, 0.0015, "id-1", "site", b'evil" 200 0 "\\', b""
)  # fmt: skip


def written(form: str, entry: Entry = ENTRY) -> bytes:
    reader, writer = os.pipe()
    log = AccessLog(form, writer, lambda: 0.0)
    log.add(entry)
    log.flush()
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read()


def test_what_a_client_sends_cannot_end_its_field_or_line() -> None:
    line = written(COMMON)
    assert line.startswith(b"1.2.3.4 - - [") and line.count(b"\n") == 1
    assert line.endswith(b'] "GET /a\\"b HTTP/1.1" 200 12 "-" "evil\\" 200 0 \\"\\\\" 0.001500 id-1\n')
    fields = json.loads(written(JSON))
    assert fields["agent"] == ENTRY.agent.decode() and fields["seconds"] == 0.0015


def test_what_is_too_long_for_a_line_is_cut_and_the_line_is_whole() -> None:
    long = ENTRY._replace(target=b"/" + b'"' * 5000, agent=b"a" * 1000, referer=b"r" * 3000)
    assert len(written(JSON, long)) <= PIPE_BUF and len(written(COMMON, long)) <= PIPE_BUF
    fields = json.loads(written(JSON, long))
    assert (fields["agent"], fields["request_id"]) == ("a" * 1000, "id-1") and fields["target"].startswith('/"')
    assert b'" 200 12 "' in written(COMMON, long) and written(COMMON, long).endswith(b'" 0.001500 id-1\n')


def test_a_log_that_nobody_reads_neither_stops_a_gateway_nor_grows_without_end() -> None:
    reader, writer = os.pipe()
    log = AccessLog(COMMON, writer)
    line = len(written(COMMON))
    for _ in range(3 * KEPT_BYTES // line):
        log.add(ENTRY)
    assert log._size <= KEPT_BYTES
    os.set_blocking(reader, False)
    data = b""
    for _ in range(1000):
        log.flush()
        try:
            data += os.read(reader, 1 << 20)
        except BlockingIOError:
            break
    assert b"lines were dropped here" in data and data.count(b"\n") > KEPT_BYTES // line
    os.close(reader)
    os.close(writer)


def test_many_lines_do_not_wait_for_the_next_look() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = AccessLog(COMMON, writer)
    for _ in range(FLUSH_BYTES // len(written(COMMON)) + 1):
        log.add(ENTRY)
    assert len(os.read(reader, 2 * FLUSH_BYTES)) >= FLUSH_BYTES
    os.close(reader)
    os.close(writer)


def test_lines_that_the_disk_refused_are_told_as_that(tmp_path: Path) -> None:
    place = tmp_path / "log"
    full, fd = os.open("/dev/full", os.O_WRONLY), os.open(place, os.O_WRONLY | os.O_CREAT)
    log = AccessLog(COMMON, full)
    for _ in range(40):  # more than are written at once
        log.add(ENTRY)
    for _ in range(3):
        log.flush()  # the notice, too, is refused, and is no line that is missing
    os.dup2(fd, full)
    log.add(ENTRY)
    log.flush()
    notice, line = place.read_bytes().splitlines()
    assert notice == b"# 40 lines were dropped here: No space left on device" and line.endswith(b" id-1")
    os.close(full)
    os.close(fd)


def test_what_is_told_to_be_missing_names_no_cause_of_which_nothing_is_missing(tmp_path: Path) -> None:
    """The note of lines that one cause dropped was itself refused for another."""
    path = tmp_path / "access.log"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    log = AccessLog(COMMON, fd)
    log.add(ENTRY)
    log.flush()  # a bad descriptor
    for name, flags in (("/dev/full", os.O_WRONLY), (str(path), os.O_WRONLY | os.O_APPEND)):
        other = os.open(name, flags)
        os.dup2(other, fd)
        os.close(other)
        log.flush()
    os.close(fd)
    assert path.read_text() == f"# 1 lines were dropped here: {os.strerror(errno.EBADF)}\n"


def test_a_line_as_long_as_a_pipe_takes_comes_behind_what_is_told_to_be_missing() -> None:
    reader, writer = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(COMMON, full)
    log.add(ENTRY)
    log.flush()
    long = ENTRY._replace(target=b"/" + b"x" * 10_000)
    log.add(long)
    log.flush()
    os.dup2(writer, full)
    log.add(long)
    log.flush()
    os.close(writer)
    os.close(full)
    with open(reader, "rb") as file:
        notice, line = file.read().splitlines()
    assert notice == b"# 2 lines were dropped here: No space left on device" and len(line) == PIPE_BUF - 1


def test_off_is_not_wanted() -> None:
    assert not AccessLog(OFF).wanted and AccessLog(JSON).wanted
