from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rota.common import wire
from rota.master.core.sessions import Session

BIG = 1 << 20


def session(answers: int = 0, bytes_max: int = BIG, size: int = 100) -> Session:
    made = Session(b"s" * 16, 0.0)
    made.token = 7
    for number in range(1, answers + 1):
        keep(made, number, bytes_max, size)
    return made


def keep(made: Session, number: int, bytes_max: int = BIG, size: int = 100) -> None:
    made.sequence += 1
    made.keep(number, wire.head(wire.ANSWER, 7, number=number, upto=made.sequence) + b"x" * size, bytes_max)


def test_every_answer_is_kept_until_it_is_acknowledged() -> None:
    made = session(3)
    made.acknowledge(2)
    assert [number for number, _ in made.kept] == [3]
    assert made.acked == 2
    made.acknowledge(3)
    assert (list(made.kept), made.kept_bytes) == ([], 0)


def test_an_acknowledgement_of_what_was_never_sent_is_ignored() -> None:
    made = session(2)
    made.acknowledge(3)
    assert (made.acked, len(made.kept)) == (0, 2)


def test_a_recorded_answer_comes_with_its_sequence_under_the_present_token() -> None:
    made = session(3)
    made.acknowledge(1)
    made.token = 99
    found = made.recorded(3)
    assert found is not None
    sequence, frame = found
    head = wire.parse_head(frame)
    assert (sequence, head.token, head.number, head.upto, head.flags) == (3, 99, 3, 3, wire.RESENT)
    assert frame[head.head_len :] == b"x" * 100


def test_what_was_never_answered_is_not_recorded() -> None:
    assert session(3).recorded(4) is None


def test_beyond_its_bytes_only_the_number_and_sequence_stay_the_oldest_first() -> None:
    made = session(5, bytes_max=500)
    dropped = [number for number in range(1, 6) if made.recorded(number) == (number, b"")]
    assert dropped == [1, 2]
    assert made.kept_bytes <= 500


def test_dropping_what_is_old_does_not_cost_more_the_older_it_is() -> None:
    made = session(5000, bytes_max=500)
    assert made.dropped == 4997
    made.acknowledge(4998)
    assert (made.dropped, len(made.kept)) == (0, 2)


@given(st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=60), st.integers(150, 2000))
def test_bytes_and_sequences_add_up_whatever_is_acknowledged(steps: list[int | None], bytes_max: int) -> None:
    made = session()
    number = 0
    for step in steps:
        if step is None:
            number += 1
            keep(made, number, bytes_max)
        else:
            made.acknowledge(max(step, made.acked))
        assert made.kept_bytes == sum(len(frame) for _, frame in made.kept) <= bytes_max
        assert len(made.kept) == made.sequence - made.acked
        assert [not frame for _, frame in made.kept] == sorted([not frame for _, frame in made.kept], reverse=True)
        assert made.dropped == sum(not frame for _, frame in made.kept)
        assert made.owed() == len(made.kept) * (wire.HEADER_SIZE + 100)
