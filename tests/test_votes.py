from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common.messages import Deny, Vote
from rota.worker.core.votes import Ballot, Votes

LEASE_S = 1.0
START = 1000.0
LATER = START + 10.0  # long after the abstention


def vote(epoch: int, master: str = "b") -> Vote:
    return Vote(epoch, master, int(LEASE_S * 1000))


def ask(votes: Votes, asked: Vote, now: float) -> Deny | None:
    """As the shell does: what is not refused is made durable and granted."""
    denied = votes.refusal(asked, now)
    if denied is None:
        votes.granted(asked, now)
    return denied


def obeying(master: str = "a", epoch: int = 3) -> Votes:
    """Of an agent that leased to this master at LATER."""
    votes = Votes(START)
    votes.saw(epoch)
    votes.leased(master, epoch, LEASE_S, LATER)
    return votes


GRANTED = None
SEEN, LEASED, STARTED = "was seen", "has its lease", "just started"

DECISIONS: list[tuple[str, Votes, Vote, float, str | None, int]] = [
    ("nothing is known", Votes(START), vote(1), LATER, GRANTED, 0),
    ("a higher epoch", Votes(START, 3), vote(4), LATER, GRANTED, 0),
    ("epochs may be left out", Votes(START, 3), vote(9), LATER, GRANTED, 0),
    ("an epoch that was seen", Votes(START, 3), vote(3), LATER, SEEN, 0),
    ("an older one", Votes(START, 3), vote(2), LATER, SEEN, 0),
    ("while a lease runs", obeying(), vote(4), LATER + 0.4, LEASED, 601),
    ("when it has run out", obeying(), vote(4), LATER + LEASE_S, GRANTED, 0),
    ("its holder itself", obeying(), vote(4, "a"), LATER + 0.4, GRANTED, 0),
    ("its holder in the same epoch", obeying(), vote(3, "a"), LATER + 0.4, SEEN, 0),
    ("just after the start", Votes(START), vote(1), START + 0.25, STARTED, 751),
    ("after one lease", Votes(START), vote(1), START + LEASE_S, GRANTED, 0),
    ("the vote of before the restart again", Votes(START, 4, Ballot(4, "b")), vote(4), START, STARTED, 1001),
    ("the same after one lease", Votes(START, 4, Ballot(4, "b")), vote(4), START + LEASE_S, GRANTED, 0),
    ("another one in its epoch", Votes(START, 4, Ballot(4, "b")), vote(4, "c"), LATER, SEEN, 0),
    ("an old vote, after a higher epoch", Votes(START, 5, Ballot(4, "b")), vote(4), LATER, SEEN, 0),
    ("a vote that was kept without its epoch", Votes(START, 0, Ballot(4, "b")), vote(3), LATER, SEEN, 0),
]


@pytest.mark.parametrize("name, votes, asked, now, why, wait_ms", DECISIONS, ids=[each[0] for each in DECISIONS])
def test_the_table_of_decisions(
    name: str, votes: Votes, asked: Vote, now: float, why: str | None, wait_ms: int
) -> None:
    denied = votes.refusal(asked, now)
    if why is None:
        assert denied is None
    else:
        assert denied is not None
        assert why in denied.why
        assert (denied.epoch, denied.seen) == (asked.epoch, votes.seen)
        assert denied.wait_ms == pytest.approx(wait_ms, abs=1)


def test_one_vote_an_epoch_and_the_same_again() -> None:
    votes = Votes(START)
    assert ask(votes, vote(1, "b"), LATER) is None
    assert ask(votes, vote(1, "b"), LATER + 5) is None
    assert ask(votes, vote(1, "c"), LATER + 50) is not None


def test_a_vote_is_not_repeated_while_who_won_that_epoch_has_a_lease() -> None:
    votes = Votes(START)
    assert ask(votes, vote(2, "b"), LATER) is None
    votes.leased("a", 2, LEASE_S, LATER + 5)  # the others made it the master of epoch 2
    assert ask(votes, vote(2, "b"), LATER + 5.1) is not None
    assert ask(votes, vote(3, "b"), LATER + 5.2) is not None


def test_a_grant_is_the_first_lease() -> None:
    votes = Votes(START)
    ask(votes, vote(1, "b"), LATER)
    denied = ask(votes, vote(2, "c"), LATER + 0.9)
    assert denied is not None and "b has its lease" in denied.why
    assert ask(votes, vote(2, "c"), LATER + LEASE_S) is None


def test_no_vote_until_one_lease_after_another_agent_may_have_leased_under_this_name_and_no_longer() -> None:
    votes = Votes(START)
    votes.unsure(LATER + 1.0)  # when the master that said so is asked again
    votes.unsure(LATER + 0.5)
    denied = ask(votes, vote(1), LATER + 1.0)
    assert denied is not None and "another agent has its name" in denied.why and denied.wait_ms == 1001
    assert ask(votes, vote(1), LATER + 1.0 + LEASE_S) is None


def test_a_lease_never_becomes_shorter() -> None:
    votes = Votes(START)
    votes.granted(Vote(1, "b", 5000), LATER)
    votes.leased("b", 1, LEASE_S, LATER + 0.1)
    assert votes.refusal(vote(2, "c"), LATER + 4.9) is not None


def test_each_answered_beat_makes_it_longer() -> None:
    votes = obeying()
    votes.leased("a", 3, LEASE_S, LATER + 0.5)
    assert votes.refusal(vote(4), LATER + LEASE_S + 0.4) is not None


def test_what_was_seen_or_released_is_not_forgotten_for_something_lower() -> None:
    votes = obeying(epoch=3)
    votes.saw(2)
    votes.released(3)
    votes.released(2)
    assert not votes.may_lease(3) and not votes.may_lease(2)
    assert votes.refusal(vote(3), LATER + 5) is not None


def test_from_the_grant_on_no_lower_epoch_gets_a_lease() -> None:
    votes = obeying()
    ask(votes, vote(4), LATER + 2)
    assert not votes.may_lease(3)
    votes.leased("a", 3, LEASE_S, LATER + 3)  # of a beat that was under way
    assert votes.lease is not None and votes.lease.master == "b"


def test_a_release_voids_the_lease_and_those_of_late_beats() -> None:
    votes = obeying()
    votes.released(3)
    assert not votes.may_lease(3)
    votes.leased("a", 3, LEASE_S, LATER + 0.1)
    assert ask(votes, vote(4), LATER + 0.2) is None


def test_a_late_release_leaves_the_lease_of_the_next_master_alone() -> None:
    votes = obeying()
    ask(votes, vote(4), LATER + 2)
    votes.released(3)
    assert ask(votes, vote(5, "c"), LATER + 2.5) is not None


MASTERS = st.sampled_from(["a", "b", "c"])
EPOCHS = st.integers(1, 6)
STEPS = st.lists(
    st.tuples(st.sampled_from(["vote", "beat", "release", "saw", "restart"]), MASTERS, EPOCHS, st.integers(0, 700)),
    max_size=40,
)


def test_a_grant_says_what_was_seen_before_it_however_often_it_is_asked_for() -> None:
    votes = Votes(START, 3)
    for asked, seen, before in ((vote(5), 0, 3), (vote(5), 0, 3), (vote(9), 7, 7)):
        votes.saw(seen)
        assert ask(votes, asked, LATER) is None and votes.before == before


@given(steps=STEPS, durable=st.booleans())
def test_whatever_happens_no_two_masters_hold_what_only_one_may(steps: list[Any], durable: bool) -> None:
    """Two in one epoch never get a vote, and nobody gets one while another one's lease runs; over restarts as well."""
    now = START
    votes = Votes(now)
    given: dict[int, str] = {}
    until: dict[str, tuple[int, float]] = {}  # master → what it may count on, by an observer that forgets nothing
    for what, master, epoch, ms in steps:
        now += ms / 1000
        if what == "restart":
            votes = Votes(now, votes.seen if durable else 0, votes.ballot if durable else None)
        elif what == "saw":
            votes.saw(epoch)
        elif what == "release":
            votes.released(epoch)
            until = {each: (of, end) for each, (of, end) in until.items() if of > epoch}
        elif what == "beat" and votes.may_lease(epoch):
            votes.saw(epoch)  # its WELCOME was obeyed
            votes.leased(master, epoch, LEASE_S, now)
            until = {master: (epoch, now + LEASE_S)}  # another one had lost its epoch, or never had it
        elif what == "vote" and ask(votes, vote(epoch, master), now) is None:
            assert all(end <= now for each, (_, end) in until.items() if each != master)
            assert not durable or given.setdefault(epoch, master) == master
            until = {master: (epoch, now + LEASE_S)}
