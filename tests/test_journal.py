from __future__ import annotations

import os
import select
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common.lifecycle import Intent
from rota.master.core import records
from rota.master.core.records import Restored
from rota.master.core.registry import Node
from rota.master.journal import Journal, JournalError


def durable(journal: Journal, number: int) -> None:
    """Waits until the journal says so."""
    while journal.recorded()[0] < number:
        assert select.select([journal.wake_fd], [], [], 10.0)[0], "no word from the journal"


def write(directory: Path | None, *data: bytes) -> Journal:
    journal = Journal(directory)
    if data:
        journal.record(enumerate(data, 1))
        durable(journal, len(data))
    return journal


SUSPECT = records.Suspect(b"orders.sum", 1, b"x", "suspect", 1.0, 1, 1.0, 1.0, 0, [])


def drained(name: str, generation: int = 1) -> bytes:
    return records.intent(Node(name, Intent.DETACHED, generation=generation, by="ann", reason="disk", version="7"))


def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    write(tmp_path, drained("n1"), records.present("n2", True), records.scaled("orders", 3)).close()
    journal = Journal(tmp_path)
    node = journal.restored.nodes["n1"]
    assert (node.intent, node.generation, node.by, node.reason, node.version) == (
        Intent.DETACHED,
        1,
        "ann",
        "disk",
        "7",
    )
    assert journal.restored.present == {"n2"} and journal.restored.targets == {"orders": 3}
    journal.close()


def test_the_last_word_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        drained("n1"),
        records.intent(Node("n1", Intent.ACTIVE, generation=2)),
        records.present("n1", True),
        records.present("n1", False),
        drained("n3"),
        records.forgotten("n3"),
    ).close()
    journal = Journal(tmp_path)
    journal.close()
    restored = journal.restored
    assert restored.nodes["n1"].intent is Intent.ACTIVE and not restored.present and "n3" not in restored.nodes


def test_the_epoch_rises_at_every_start_and_is_durable_before_anybody_is_served(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        journal = Journal(tmp_path)
        journal.rise(journal.epoch + 1, "m")
        epochs.append(journal.epoch)
        os.close(journal._lock)  # as a killed master leaves it
    assert epochs == [1, 2, 3]


def test_an_epoch_that_a_master_only_stood_for_outlives_it_too(tmp_path: Path) -> None:
    """Else it would stand for it again, and be given votes that it had been given already."""
    journal = Journal(tmp_path)
    journal.rise(3, "m")
    journal.rise(7, "")
    journal.close()
    for _ in range(2):  # the second reads what the first has put in its place
        journal = Journal(tmp_path)
        assert (journal.stood, journal.epoch, journal.epoch_by) == (7, 3, "m")
        journal.close()


def test_what_takes_the_place_of_all_records_leaves_the_epochs(tmp_path: Path) -> None:
    journal = write(tmp_path, drained("n1"))
    journal.rise(3, "m")
    journal.record([(2, drained("n2")), (3, [drained("n3")]), (4, drained("n4"))])
    durable(journal, 4)
    journal.close()
    for _ in range(2):
        journal = Journal(tmp_path)
        assert set(journal.restored.nodes) == {"n3", "n4"} and (journal.epoch, journal.stood) == (3, 3)
        journal.close()


def test_a_journal_that_has_grown_is_rewritten_while_its_master_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request that killed a process left 64 KiB there, as long as this master lived."""
    monkeypatch.setattr("rota.master.journal.REWRITE_BYTES", 10_000)
    journal = write(tmp_path, drained("n1"))
    journal.rise(3, "m")
    for number in range(2, 2_000):
        journal.record([(number, drained("n2"))])
    durable(journal, 1_999)
    journal.record([(2_000, drained("n3"))])
    durable(journal, 2_000)
    assert (tmp_path / "journal").stat().st_size < 20_000
    journal.close()
    journal = Journal(tmp_path)
    assert set(journal.restored.nodes) == {"n1", "n2", "n3"} and (journal.epoch, journal.epoch_by) == (3, "m")
    journal.close()


def test_of_a_damaged_journal_nothing_is_left_out_while_its_master_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.master.journal.REWRITE_BYTES", 10_000)
    journal = write(tmp_path, drained("n1"))
    with open(tmp_path / "journal", "r+b") as file:
        file.write(b"damaged")
    for number in range(2, 200):
        journal.record([(number, drained("n2"))])
    durable(journal, 199)
    assert (tmp_path / "journal").stat().st_size > 10_000
    journal.close()


def test_what_is_called_durable_was_fsynced_with_the_directory_that_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}  # inode → its size then
    fsync = os.fsync

    def noted(fd: int) -> None:
        fsync(fd)
        synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size

    def is_durable() -> bool:
        file = (tmp_path / "journal").stat()
        return synced.get(file.st_ino) == file.st_size and tmp_path.stat().st_ino in synced

    monkeypatch.setattr(os, "fsync", noted)
    journal = Journal(tmp_path)
    assert is_durable()
    journal.rise(1, "m")
    assert is_durable()
    journal.record([(1, drained("n1"))])
    durable(journal, 1)
    assert is_durable()
    assert not select.select([journal.wake_fd], [], [], 0)[0], "it was told of"
    synced.clear()
    journal.record([(2, [drained("n2")])])
    durable(journal, 2)
    assert is_durable()
    journal.close()


@pytest.mark.parametrize("cut", [1, 5, 9, 30])
def test_a_write_that_a_crash_cut_short_loses_only_itself(tmp_path: Path, cut: int) -> None:
    write(tmp_path, drained("n1"), drained("n2")).close()
    path = tmp_path / "journal"
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal(tmp_path)
    assert "n1" in journal.restored.nodes and "n2" not in journal.restored.nodes
    assert journal.truncated > 0
    journal.close()


@pytest.mark.parametrize("zeros", [7, 8, 64, 4096])
def test_a_crash_that_leaves_zeros_at_the_end_loses_nothing(tmp_path: Path, zeros: int) -> None:
    write(tmp_path, drained("n1")).close()
    path = tmp_path / "journal"
    path.write_bytes(path.read_bytes() + bytes(zeros))
    journal = Journal(tmp_path)
    assert "n1" in journal.restored.nodes and journal.truncated == zeros
    journal.close()


def test_a_journal_that_cannot_be_read_to_its_end_is_kept(tmp_path: Path) -> None:
    write(tmp_path, drained("n1"), drained("n2")).close()
    path = tmp_path / "journal"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    Journal(tmp_path).close()
    assert (tmp_path / "journal.damaged").read_bytes() == data


def test_a_damaged_record_and_what_follows_it_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path, drained("n1"), drained("n2")).close()
    path = tmp_path / "journal"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    journal = Journal(tmp_path)
    assert set(journal.restored.nodes) == {"n1"}
    journal.close()


def test_two_masters_do_not_share_a_directory(tmp_path: Path) -> None:
    first = Journal(tmp_path / "made" / "by it")
    with pytest.raises(JournalError, match="another master"):
        Journal(tmp_path / "made" / "by it")
    first.close()


def test_a_directory_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="must be a directory that this user may write to"):
        Journal(tmp_path / "file")


def test_a_disk_that_is_full_at_the_start_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "journal.new").symlink_to("/dev/full")
    with pytest.raises(JournalError) as caught:
        Journal(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'journal'}: No space left on device; mend that and start again"


@pytest.mark.parametrize("record", [{"t": "what"}, {"t": "epoch"}, {"t": "epoch", "epoch": "1"}, {}, [], None, "epoch"])
def test_a_record_of_a_later_version_is_not_guessed_at(tmp_path: Path, record: object) -> None:
    write(tmp_path, msgpack.packb(record)).close()
    with pytest.raises(JournalError, match=r"not understood; was it a newer version that wrote it\? Start that one"):
        Journal(tmp_path)


def test_a_write_that_fails_says_so_and_nothing_more_is_called_durable(tmp_path: Path) -> None:
    journal = write(tmp_path, drained("n1"))
    os.close(journal._file)
    journal._file = os.open("/dev/full", os.O_WRONLY)
    journal.record([(2, drained("n2"))])
    while not journal.recorded()[1]:
        assert select.select([journal.wake_fd], [], [], 10.0)[0]
    number, failure = journal.recorded()
    assert number == 1 and "cannot be written" in failure and "space" in failure
    journal.close()


def test_whatever_ends_the_writing_says_so_and_nobody_waits_for_ever(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(_: object) -> int:
        return {}["what nobody has thought of"]

    journal = write(tmp_path, drained("n1"))
    monkeypatch.setattr("rota.master.journal.crc32", mistaken)
    journal.record([(2, drained("n2"))])
    while not journal.recorded()[1]:
        assert select.select([journal.wake_fd], [], [], 10.0)[0], "no word from the journal"
    number, failure = journal.recorded()
    assert number == 1 and "cannot be written: KeyError: 'what nobody has thought of'; mend that" in failure
    assert "in mistaken" in capfd.readouterr().err, "with its traceback"
    with pytest.raises(JournalError, match="cannot be written"):
        journal.rise(1, "m")
    journal.close()


def test_no_epoch_begins_that_cannot_be_made_durable(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    os.close(journal._file)
    journal._file = os.open("/dev/full", os.O_WRONLY)
    for _ in range(2):  # as it fails, and afterwards
        with pytest.raises(JournalError, match="cannot be written: No space left"):
            journal.rise(1, "m")
    journal.close()


def test_what_goes_to_a_file_that_was_deleted_is_not_called_durable(tmp_path: Path) -> None:
    journal = write(tmp_path, drained("n1"))
    (tmp_path / "journal").unlink()
    journal.record([(2, drained("n2"))])
    while not journal.recorded()[1]:
        assert select.select([journal.wake_fd], [], [], 10.0)[0]
    number, failure = journal.recorded()
    assert number == 1 and "the journal cannot be written: it was deleted" in failure
    journal.close()


def test_without_a_directory_everything_counts_as_recorded() -> None:
    journal = write(None, drained("n1"))
    journal.rise(1, "m")
    assert journal.recorded() == (1, "") and journal.epoch == 1
    journal.close()


@given(
    st.lists(
        st.one_of(
            st.builds(drained, st.sampled_from("abc"), st.integers(1, 9)),
            st.builds(records.present, st.sampled_from("abc"), st.booleans()),
            st.builds(records.forgotten, st.sampled_from("abc")),
            st.builds(records.scaled, st.sampled_from("xy"), st.integers(0, 9)),
            st.builds(records.suspect, st.sampled_from([b"f", b"g"]), st.sampled_from([None, SUSPECT])),
        ),
        max_size=20,
    )
)
def test_the_sum_of_all_records_says_the_same_as_the_records(written: list[bytes]) -> None:
    long, short = Restored(), Restored()
    for record in written:
        long.read(record)
    for record in long.records():
        short.read(record)
    for known in (short, long):
        assert not known.gone.keys() & known.suspects
    assert short == long or (short.present, short.targets, short.gone, sorted(short.records())) == (
        long.present,
        long.targets,
        long.gone,
        sorted(long.records()),
    )


@given(st.binary(max_size=60))
def test_a_foreign_record_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not understood"):
        Restored().read(data)


def test_a_mark_or_suspect_of_a_later_version_leaves_what_was_known_as_it_was() -> None:
    known = Restored()
    mark = records.Marked("boot", "blacklisted", 1, 1.0, "orders", "it died", None)
    known.read(records.marked("n1", mark))
    known.read(records.suspect(b"f", SUSPECT))
    for record in (
        records.marked("n1", mark._replace(health="on the moon")),
        records.suspect(b"f", SUSPECT._replace(state="on the moon")),
        records.suspect(b"g", SUSPECT._replace(state="on the moon")),
    ):
        with pytest.raises(ValueError, match="not understood"):
            known.read(record)
    assert known.copy().marked == {"n1": mark} and known.copy().suspects == {b"f": SUSPECT}
