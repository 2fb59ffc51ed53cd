"""What an active master tells its standby, and what it may do meanwhile (docs/STANDBY.md)."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from rota.common import messages, wire
from rota.common.messages import PeerHello, Promise, Pulse, Replica
from rota.common.settings import StandbySettings
from rota.master.core import records
from rota.master.core.events import EventLog
from rota.master.core.follower import REPLICA_BYTES
from rota.master.core.followers import Active
from rota.master.core.mirror import Mirror
from rota.master.core.outbox import Outbox
from rota.master.core.pair import Pair
from rota.master.core.records import Peer, Restored

ROUTE, TOKEN = b"standby", 7
OTHER = Peer("other", "tcp://other:7700", "backup")
HELLO = PeerHello([1, 1], "other", "tcp://other:7700", "backup", 0, 1000, "majority")


class Rig:
    """The active's side, its journal, and what it says to its standby."""

    def __init__(
        self, known: Restored | None = None, voters: str = "ab", complete: bool = True, quorum: str = "majority"
    ) -> None:
        self.now = 100.0
        self.voters = frozenset(voters)
        self.journal: list[bytes] = []
        self.out = Outbox()
        known = known or Restored()
        active = Active("me", StandbySettings(quorum=quorum), known, 0, self._journal, self.out, EventLog(lambda: 0.0))
        self.pair = Pair(active, {}, lambda _: self.voters, complete, self.now)
        self.pair.tick(1, self.now)

    def _journal(self, record: bytes, ours: bool) -> int:
        self.journal.append(record)
        self.pair.record(len(self.journal), record, ours)
        return len(self.journal)

    def greet(self, address: str = HELLO.address) -> None:
        self.pair.greet(ROUTE, TOKEN, HELLO._replace(address=address), 1, self.now)

    def recorded(self) -> None:
        self.pair.recorded(len(self.journal), 1, self.now)

    def promise(self, lasts_ms: int = 1000, has: int | None = None, voters: int = 2) -> None:
        """The answer to the last pulse. `has`: records; all, if it is not said."""
        number = self.said(Pulse)[-1].number
        has = len(self.journal) if has is None else has
        self.pair.from_standby(ROUTE, Promise(number, lasts_ms, has, voters=voters), self.now)

    def tick(self, now: float) -> None:
        self.now = now
        self.pair.tick(1, now)

    def said(self, kind: type) -> list[Any]:
        found = [messages.decode(frame[wire.parse_head(frame).head_len :]) for _, frame in self.out.control]
        return [each for each in found if isinstance(each, kind)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "me"}, "both masters are called me"),
        ({"role": "primary"}, "both masters are primary"),
        ({"takeover_ms": 2000}, "takeover_after and quorum"),
        ({"quorum": "any"}, "takeover_after and quorum"),
        ({"address": "garbage"}, "no address"),
        ({"lease": "etcd"}, "lease is agents at me and etcd at other"),
    ],
)
def test_a_master_that_does_not_fit_is_no_standby(rig: Rig, change: dict[str, Any], why: str) -> None:
    assert why in rig.pair.refuse(HELLO._replace(**change))


def test_one_that_fits_is_and_a_second_one_is_not(rig: Rig) -> None:
    assert rig.pair.refuse(HELLO) == ""
    rig.greet()
    rig.recorded()
    assert "`rota forget other` first" in rig.pair.refuse(HELLO._replace(name="third"))


def test_a_promise_lasts_no_longer_than_takeover_after_whatever_it_says(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    rig.pair.from_standby(ROUTE, Promise(1, 10**15, 0), rig.now)
    assert rig.pair.until() <= rig.now + 1.0


def test_a_promise_counts_from_its_pulse_for_as_long_as_it_says(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    rig.tick(105.0)
    assert rig.pair.until() == 101.0
    rig.now = 105.4
    rig.promise(300)
    assert rig.pair.until() == 105.3
    rig.promise()
    assert rig.pair.until() == 105.3, "this pulse was answered"


def test_with_any_as_quorum_it_may_always_dispatch() -> None:
    rig = Rig(quorum="any")
    rig.pair.greet(ROUTE, TOKEN, HELLO._replace(quorum="any"), 1, rig.now)
    rig.recorded()
    assert not rig.pair.alone and rig.pair.until() == inf


def test_a_takeover_that_is_impossible_is_an_alarm(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    rig.pair.from_standby(ROUTE, Promise(1, 1000, 0, voters=1), rig.now)
    assert any("no takeover is possible" in alarm for alarm in rig.pair.alarms(rig.now))
    rig.pair.from_standby(ROUTE, Promise(1, 1000, 0, voters=2), rig.now)
    assert not rig.pair.alarms(rig.now)


def test_nothing_is_handed_over_to_a_standby_that_cannot_be_elected(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    rig.pair.from_standby(ROUTE, Promise(1, 1000, len(rig.journal), voters=1), rig.now)
    assert "no takeover is possible: of 2 nodes that vote 1 are connected to other" in rig.pair.unready()
    rig.pair.settings = StandbySettings(quorum="any")  # which asks nobody for a vote
    assert rig.pair.unready() == "" and not rig.pair.alarms(rig.now)
    rig.pair.settings = StandbySettings()
    rig.pair.from_standby(ROUTE, Promise(2, 1000, len(rig.journal), voters=2), rig.now)
    assert rig.pair.unready() == ""


def test_what_the_standby_has_not_recorded_is_not_relied_upon_until_it_is_given_up(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    rig.pair.from_standby(ROUTE, Promise(1, 1000, len(rig.journal)), rig.now)
    number = rig._journal(records.scaled("orders", 3), False)
    assert rig.pair.durable(number) < number
    rig.pair.gone(ROUTE)
    assert rig.pair.durable(number) < number  # it may be about to take over
    rig.pair.tick(1, rig.now + 3.1)
    assert rig.pair.durable(number) == number


def test_one_that_said_goodbye_is_not_waited_for(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    rig.pair.from_standby(ROUTE, Promise(1, 1000, len(rig.journal)), rig.now)
    number = rig._journal(records.scaled("orders", 3), False)
    rig.pair.gone(ROUTE, said_bye=True)
    assert rig.pair.durable(number) == number


def test_alone_it_may_always_dispatch(rig: Rig) -> None:
    assert rig.pair.until() == inf


def test_a_new_standby_gets_nothing_before_it_is_on_record(rig: Rig) -> None:
    """Started again without that record this master would be active alone, while the other one takes over."""
    rig.greet()
    assert not rig.said(Replica) and not rig.said(Pulse) and rig.pair.until() == inf
    rig.recorded()
    assert rig.said(Replica)[0].first and rig.said(Pulse) and rig.pair.peer == OTHER


def test_it_goes_on_dispatching_while_a_new_standby_has_promised_nothing_yet(rig: Rig) -> None:
    rig.greet()
    rig.recorded()
    assert rig.pair.until() == rig.now + 1.0


def test_who_votes_is_on_record_before_the_first_standby_is(rig: Rig) -> None:
    """Started again it is a standby itself, and nobody is elected by nobody."""
    rig.greet()
    assert rig.journal == [records.electorate("ab"), records.peer(OTHER)]


def test_who_votes_does_not_change_while_the_first_standby_is_not_on_record(rig: Rig) -> None:
    rig.greet()
    rig.voters = frozenset("abc")
    rig.pair.tick(1, rig.now)
    rig.recorded()
    assert rig.said(Replica)[0].records == [records.electorate("ab")]
    rig.pair.from_standby(ROUTE, Promise(rig.said(Pulse)[0].number, 1000, 0), rig.now)
    rig.pair.tick(1, rig.now)
    assert rig.journal[-1] == records.electorate("abc", before="ab")  # it has to agree


def test_a_standby_that_comes_back_gets_everything_at_once() -> None:
    known = Restored()
    known.peer = OTHER
    rig = Rig(known)
    rig.greet()
    assert rig.said(Replica)[0].first and rig.said(Pulse)


def test_the_first_nodes_lease_though_the_standby_has_not_agreed_to_them() -> None:
    known = Restored()
    known.peer = OTHER
    known.electorate, known.electorate_before = frozenset("a"), frozenset()
    rig = Rig(known, voters="a", complete=False)
    rig.pair.beat("a", messages.Beat(1, 0, 0, 1), rig.now)
    rig.pair.beat("a", messages.Beat(2, 0, 1, 1), rig.now)
    assert rig.pair.until() == rig.now + 1.0


def test_without_any_node_it_needs_a_promise_until_the_standby_has_its_records() -> None:
    """That one may know of nodes which this master, started again, has lost."""
    known = Restored()
    known.peer = OTHER
    rig = Rig(known, voters="", complete=False)
    assert rig.pair.until() == -inf
    rig.greet()
    rig.pair.from_standby(ROUTE, Promise(rig.said(Pulse)[0].number, 1000, 0), rig.now)
    assert rig.pair.until() == inf


# ---- who votes, with a standby ---------------------------------------------------------------------------------------


def followed(rig: Rig) -> Rig:
    """Its standby is there, and has all."""
    rig.greet()
    rig.recorded()
    rig.promise()
    rig.tick(rig.now + 1.0)
    return rig


def test_who_votes_changes_when_the_standby_has_that_on_record(rig: Rig) -> None:
    followed(rig)
    told = len(rig.journal)
    rig.tick(102.0)
    assert len(rig.journal) == told, "nothing changes"
    rig.voters = frozenset("abc")
    for now in (103.0, 104.0):
        rig.tick(now)
        assert rig.journal[told:] == [records.electorate("abc", before="ab")], "it is proposed once"
        assert rig.said(Replica)[-1].records == rig.journal[told:]
    rig.promise(has=told)
    assert rig.pair.leases.electorate == frozenset("ab")
    rig.tick(105.0)
    rig.promise()
    assert rig.pair.leases.electorate == frozenset("abc") and rig.journal[-1] == records.electorate("abc")
    assert rig.said(Replica)[-1].records == [records.electorate("abc")]


def test_who_votes_does_not_change_while_the_standby_is_not_heard(rig: Rig) -> None:
    followed(rig)
    told = len(rig.journal)
    rig.pair.gone(ROUTE)
    rig.voters = frozenset("abc")
    rig.tick(102.0)
    assert len(rig.journal) == told and rig.pair.leases.electorate == frozenset("ab")


def test_a_standby_that_comes_back_is_told_of_the_change_that_it_has_not_agreed_to(rig: Rig) -> None:
    followed(rig)
    rig.voters = frozenset("abc")
    rig.tick(102.0)
    rig.pair.gone(ROUTE)
    rig.greet()
    assert records.electorate("abc", before="ab") in rig.said(Replica)[-1].records


def test_started_again_it_has_the_change_agreed_to_first() -> None:
    known = Restored()
    known.peer = OTHER
    known.electorate, known.electorate_before = frozenset("abc"), frozenset("ab")
    rig = Rig(known, voters="abc")
    assert (rig.pair.leases.electorate, rig.pair.leases.proposed) == (frozenset("ab"), frozenset("abc"))


# ---- another address, and none ---------------------------------------------------------------------------------------


def test_a_standby_with_another_address_gets_nothing_before_that_is_on_record(rig: Rig) -> None:
    followed(rig)
    heard = len(rig.out.control)
    rig.greet("tcp://new:7700")
    assert rig.journal[-1] == records.peer(OTHER._replace(address="tcp://new:7700"))
    rig.tick(102.0)
    rig.pair.recorded(len(rig.journal) - 1, 1, rig.now)
    assert len(rig.out.control) == heard
    rig.recorded()
    assert rig.said(Replica)[-1].first and rig.pair.peer == OTHER._replace(address="tcp://new:7700")
    assert rig.pair.until() == 101.0, "what it promised before counts, and nothing else"


def test_the_address_that_a_standby_said_last_is_on_record(rig: Rig) -> None:
    followed(rig)
    rig.greet("tcp://new:7700")
    rig.greet()
    assert rig.journal[-1] == records.peer(OTHER)
    rig.recorded()
    assert rig.pair.peer == OTHER


def test_one_that_is_forgotten_has_no_say(rig: Rig) -> None:
    followed(rig)
    rig.pair.gone(ROUTE)
    assert rig.pair.until() < inf
    rig.pair.forget("other")
    assert rig.pair.until() == inf and rig.journal[-1] == records.peer(None)
    rig.voters = frozenset("c")
    rig.tick(200.0)
    assert rig.pair.leases.electorate == frozenset("c") and not rig.pair.alarms(rig.now)


def test_what_was_proposed_to_one_that_is_forgotten_nobody_has_to_agree_to(rig: Rig) -> None:
    followed(rig)
    rig.voters = frozenset("abc")
    rig.tick(100.1)
    assert rig.pair.leases.proposed == frozenset("abc")
    rig.pair.forget("other")
    rig.voters = frozenset("c")
    rig.tick(200.0)
    assert (rig.pair.leases.electorate, rig.pair.leases.proposed) == (frozenset("c"), None)


def test_nor_has_anybody_to_after_a_restart() -> None:
    known = Restored.of([records.electorate("abc", before="ab"), records.peer(OTHER), records.peer(None)])
    again = Rig(known, voters="c")
    assert (again.pair.leases.electorate, again.pair.leases.proposed) == (frozenset("c"), None)


def test_a_standby_that_is_connected_and_silent_does_not_follow(rig: Rig) -> None:
    followed(rig)
    assert rig.pair.followed and rig.pair.unready() == ""
    rig.tick(rig.now + 4.0)
    assert not rig.pair.followed and "does not follow (dead)" in rig.pair.unready()


def test_copies_of_answers_go_in_messages_of_bounded_size_and_none_is_lost(rig: Rig) -> None:
    followed(rig)
    size = REPLICA_BYTES // 3
    frames = [wire.head(wire.ANSWER, 1, number=number, upto=number) + bytes(size) for number in range(1, 9)]
    large = wire.head(wire.ANSWER, 1, number=9, upto=9) + bytes(REPLICA_BYTES)
    copies = rig.pair.copies((b"s" * 16, 0, frame) for frame in [*frames, large])
    mirror = Mirror(Restored(), 0, Outbox())
    for route, frame in copies:
        assert route == ROUTE and len(frame) < 1.1 * REPLICA_BYTES
        mirror.keep(frame, wire.parse_head(frame).head_len)
    assert mirror.answers() == [(b"s" * 16, frame) for frame in frames], "but for one that no message holds"


def test_a_pulse_is_due_every_100_ms_while_a_standby_follows(rig: Rig) -> None:
    assert rig.pair.next_deadline() == inf
    followed(rig)
    rig.tick(102.0)
    before = len(rig.said(Pulse))
    assert rig.pair.next_deadline() == pytest.approx(102.1)
    for each in (102.02, 102.04, 102.09, 102.11):
        rig.tick(each)
    assert len(rig.said(Pulse)) == before + 1


# ---- for people ------------------------------------------------------------------------------------------------------


def test_without_a_promise_and_leases_it_says_that_requests_are_held(rig: Rig) -> None:
    followed(rig)
    rig.tick(101.9)
    rig.promise()
    assert not rig.pair.alarms(rig.now) and rig.pair.status(rig.now)["peer"]["promise_ms"] == 1000
    rig.tick(104.0)
    assert "no quorum" in rig.pair.alarms(rig.now)[0] and "0 of 1 nodes needed" in rig.pair.alarms(rig.now)[0]
    status = rig.pair.status(rig.now)
    assert status["quorum"]["leases"] == 0
    assert status["peer"]["promise_ms"] == 0 and not status["quorum"]["may_dispatch"]
    rig.tick(rig.now + StandbySettings().takeover_grace)
    assert any(alarm.startswith("no standby: other") for alarm in rig.pair.alarms(rig.now))


def test_without_any_node_no_takeover_is_missed() -> None:
    rig = followed(Rig(voters=""))
    rig.promise(voters=0)
    assert not rig.pair.alarms(rig.now)
