"""One direction of a stream: whatever is lost on the way, the same bytes come out, and never more than was granted."""

from random import Random

import pytest

from rota.common import wire
from rota.common.streams import (
    CHUNK_MAX,
    WINDOW,
    WINDOW_MAX,
    BadStream,
    Chunk,
    Credit,
    Inflow,
    Outflow,
    Replay,
    chunk_of,
    credit_of,
)


def pieces(out):
    found = []
    while (chunk := out.next()) is not None:
        found.append(chunk)
    return found


def test_what_was_written_comes_in_pieces_within_the_credit():
    out = Outflow(granted=WINDOW)
    out.write(bytes(WINDOW + 1))
    assert [len(each.data) for each in pieces(out)] == [CHUNK_MAX] * 4
    assert out.blocked
    out.credited(Credit(WINDOW + 10, CHUNK_MAX, False))
    assert not out.blocked
    assert [tuple(each) for each in pieces(out)] == [(WINDOW, b"\0", True)]


def test_a_stream_is_over_when_its_end_was_received_and_not_before():
    out, into = Outflow(granted=WINDOW), Inflow(granted=WINDOW)
    out.write(b"abc")
    assert into.came(pieces(out)[0]) == b"abc"
    out.end()
    (end,) = pieces(out)
    assert end == Chunk(3, b"", False)
    assert not out.over
    into.came(end)
    credit = into.credit()
    assert into.ended
    assert credit is not None and credit.received == 4
    out.credited(credit)
    assert out.over and into.credit() is None


def test_an_empty_stream_has_an_end():
    out, into = Outflow(), Inflow()
    out.end()
    into.came(pieces(out)[0])
    out.credited(into.credit())
    assert out.over


def test_small_pieces_do_not_cost_a_word_each():
    into = Inflow(granted=WINDOW)
    told = 0
    for place in range(1000):
        into.came(Chunk(place * 100, bytes(100), True))
        into.taken(100)
        told += into.credit() is not None
    assert told <= 1


def test_a_gap_asks_for_what_is_missing():
    into = Inflow(granted=WINDOW)
    assert into.came(Chunk(10, b"later", True)) == b""
    assert into.credit() == Credit(WINDOW, 0, True)
    assert into.credit() is None


def test_more_than_was_granted_is_a_broken_rule():
    into = Inflow(granted=10)
    with pytest.raises(BadStream):
        into.came(Chunk(0, bytes(11), True))


@pytest.mark.parametrize("out", [Outflow(), Replay(3, lambda offset, size: b"abc"[offset : offset + size])])
def test_credit_for_what_was_never_sent_is_a_broken_rule(out):
    with pytest.raises(BadStream):
        out.credited(Credit(WINDOW, 5, False))


def test_another_process_gets_an_upload_from_its_beginning_and_within_its_own_credit():
    out = Replay(3 * WINDOW, lambda offset, size: bytes(size))
    out.credited(Credit(2 * WINDOW, WINDOW, False))
    assert pieces(out)[-1].offset == 2 * WINDOW - CHUNK_MAX
    out.credited(Credit(WINDOW, 0, True))
    assert [each.offset for each in pieces(out)] == [0, CHUNK_MAX, 2 * CHUNK_MAX, 3 * CHUNK_MAX]


def test_the_codec_carries_both():
    for chunk in (Chunk(7, b"body", True), Chunk(1 << 40, b"", False)):
        frame = chunk.frame(5, 9, epoch=3, attempt=2)
        assert chunk_of(wire.parse(frame), frame) == chunk
    for credit in (Credit(9, 7, False), Credit(1 << 40, (1 << 40) - WINDOW, True)):
        frame = credit.frame(5, 9)
        assert credit_of(wire.parse(frame), frame) == credit
    with pytest.raises(BadStream):
        credit_of(wire.parse(frame), frame + b"x")


@pytest.mark.parametrize("credit", [Credit(7, 9, False), Credit(WINDOW_MAX, 0, False), Credit(1 << 63, 1, True)])
def test_a_credit_grants_what_was_received_at_least_and_no_more_than_a_window_beyond(credit: Credit) -> None:
    frame = credit.frame(5, 9)
    with pytest.raises(BadStream):
        credit_of(wire.parse(frame), frame)


def test_a_stream_does_not_end_before_what_has_come_of_it() -> None:
    into = Inflow(granted=WINDOW)
    into.came(Chunk(0, b"ten bytes.", True))
    assert into.came(Chunk(0, b"ten", True)) == b""
    with pytest.raises(BadStream):
        into.came(Chunk(0, b"ten", False))


@pytest.mark.parametrize("replay", [False, True])
def test_the_same_bytes_come_out_whatever_connections_do(replay: bool) -> None:
    for seed in range(200):
        carry(seed, replay)


def carry(seed: int, replay: bool) -> None:
    """Frames vanish with their connection, in both directions, at any moment; the receiver takes when it likes."""
    chance = Random(seed)
    size = chance.choice([0, 1, CHUNK_MAX, CHUNK_MAX + 1, 3 * WINDOW + chance.randrange(WINDOW)])
    content = chance.randbytes(size)
    out = Replay(size, lambda offset, n: content[offset : offset + n]) if replay else Outflow(granted=WINDOW)
    into = Inflow(granted=0 if replay else WINDOW)
    written, got, held, most = 0, bytearray(), 0, 0
    to_receiver, to_sender = [], []
    for _ in range(20_000):
        if out.over:
            break
        step = chance.random()
        if not replay and step < 0.3 and written < size and not out.blocked:
            n = min(chance.choice([1, 1000, 200_000]), size - written)
            out.write(content[written : written + n])
            written += n
            if written == size:
                out.end()
        elif not replay and size == 0 and not out.over:
            out.end()
        if step < 0.02:  # a new connection: what is on its way is gone, each tells where it is
            to_receiver.clear()
            to_sender.clear()
            out.again()
            into.again()
        if (chunk := out.next()) is not None:
            to_receiver.append(chunk)
        if to_receiver and step < 0.8:
            new = into.came(to_receiver.pop(0))
            got += new
            held += len(new)
            most = max(most, held)
        if held and step < 0.6:
            taken = chance.randint(1, held)
            into.taken(taken)
            held -= taken
        if (credit := into.credit()) is not None:
            to_sender.append(credit)
        if to_sender and step > 0.2:
            out.credited(to_sender.pop(0))
    assert out.over and into.ended, seed
    assert bytes(got) == content, seed
    assert most <= WINDOW, seed


def test_who_sends_again_what_came_is_told_where_the_other_side_is() -> None:
    into = Inflow(granted=WINDOW)
    into.came(Chunk(0, b"once", True))
    into.taken(4)
    into.came(Chunk(0, b"once", True))
    assert into.credit() == Credit(WINDOW + 4, 4, False)
    assert into.credit() is None


def test_of_a_piece_that_came_in_part_the_rest_is_taken() -> None:
    into = Inflow(granted=WINDOW)
    into.came(Chunk(0, b"abcd", True))
    assert into.came(Chunk(2, b"cdef", True)) == b"ef"
    assert into.came(Chunk(0, b"abcdefgh", False)) == b"gh" and into.ended


def test_an_end_that_comes_with_what_was_there_already_is_an_end() -> None:
    into = Inflow(granted=WINDOW)
    into.came(Chunk(0, b"all", True))
    into.came(Chunk(0, b"all", False))
    assert into.ended


def test_what_the_other_side_misses_is_sent_again_once_for_each_word_of_that():
    out = Outflow(granted=WINDOW)
    out.write(bytes(2 * CHUNK_MAX))
    assert not pieces(out)[2:]
    for _ in range(2):
        out.credited(Credit(WINDOW, CHUNK_MAX, True))
        assert [each.offset for each in pieces(out)] == [CHUNK_MAX]
    out.credited(Credit(WINDOW, CHUNK_MAX, False))
    assert pieces(out) == []


def test_an_end_that_was_lost_is_sent_again():
    out = Outflow(granted=WINDOW)
    out.write(b"abc")
    pieces(out)
    out.end()
    assert pieces(out) == [Chunk(3, b"", False)]
    out.credited(Credit(WINDOW, 3, False))
    assert pieces(out) == []
    out.again()
    assert pieces(out) == [Chunk(3, b"", False)]


def test_the_word_of_an_end_that_was_lost_is_said_again():
    for asked_by in ("chunk", "connection"):
        into = Inflow(granted=WINDOW)
        into.came(Chunk(0, b"all", False))
        assert into.credit() is not None and into.credit() is None
        if asked_by == "chunk":
            assert into.came(Chunk(0, b"all", False)) == b""
        else:
            into.again()
        credit = into.credit()
        assert credit is not None and credit.received == 4 and into.credit() is None


def test_nothing_is_written_behind_the_end():
    out = Outflow()
    out.end()
    with pytest.raises(ValueError):
        out.write(b"x")


def test_what_may_all_be_sent_blocks_nobody():
    out = Outflow(granted=WINDOW)
    out.write(bytes(WINDOW))
    assert not out.blocked


@pytest.mark.parametrize("replay", [False, True])
def test_a_late_credit_takes_nothing_back(replay: bool) -> None:
    out = Replay(3 * WINDOW, lambda offset, size: bytes(size)) if replay else Outflow()
    if isinstance(out, Outflow):
        out.write(bytes(3 * WINDOW))
    out.credited(Credit(2 * WINDOW, 0, False))
    assert pieces(out)[-1].offset == 2 * WINDOW - CHUNK_MAX
    for credit in (Credit(2 * WINDOW, WINDOW, False), Credit(WINDOW, 0, False)):
        out.credited(credit)
        assert (out.granted, out.received) == (2 * WINDOW, WINDOW)
    assert pieces(out) == []
    out.credited(Credit(2 * WINDOW + CHUNK_MAX, WINDOW, False))
    assert [each.offset for each in pieces(out)] == [2 * WINDOW], "what is on its way is not sent again"


def test_an_upload_whose_bytes_are_lost_sends_nothing_in_their_place():
    out = Replay(10, lambda offset, size: b"short")
    out.credited(Credit(WINDOW, 0, True))
    assert out.next() is None and not out.over
