"""Clients and operators with several masters: who is asked next, how soon, and that nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq
from fake_frontend import FakeFrontend, Request
from waiting import until

import rota
from rota.client.beside import Beside
from rota.client.search import AGAIN_S, QUIET_S, SLOW_S, TAKEOVER_FIRST_S, TAKEOVER_MAX_S, Doubt, Search, final
from rota.common import messages, sockets, wire
from rota.common.link import reconnect_delay
from rota.common.messages import Refusal, Result, Verb, Welcome

A, B = "tcp://a:7700", "tcp://b:7700"
SOON_S = 2.5  # how soon exactly the search says, above; less than an attempt that nobody answers takes (ATTEMPT_S)


def welcome(state: str = "active", epoch: int = 1) -> Welcome:
    return Welcome(1, epoch, "m", state=state)


def search(*masters: str) -> Search:
    return Search(masters or (A, B), lambda: 0.5, reconnect_delay)


# ---- whose turn it is: without a socket -------------------------------------------------------------------------


def test_a_master_that_was_not_asked_yet_is_asked_at_once() -> None:
    ours = search()
    assert (ours.address, ours.next(10.0), ours.address) == (A, 10.0, B)
    assert ours.next(10.0) > 10.0, "both are dead: after a while"


def test_while_somebody_stands_by_the_pauses_stay_short() -> None:
    ours = search()
    pauses = []
    for _ in range(12):
        assert ours.next(0.0) == 0.0  # a is dead
        pauses.append(ours.next(0.0, standby=True))
    assert pauses[0] == TAKEOVER_FIRST_S and max(pauses) == TAKEOVER_MAX_S
    assert sum(pauses[:6]) < 1.0


def test_where_nobody_takes_over_for_long_they_are_asked_each_second() -> None:
    ours = search()
    pauses = [ours.next(0.0, standby=True) for _ in range(100)]
    assert max(pauses) == 1.0 and sum(pauses[:40]) > 3


def test_a_dead_pair_is_asked_less_and_less_often() -> None:
    ours = search()
    pauses = [ours.next(0.0) for _ in range(20)]
    assert pauses[19] == 1.0 and pauses[1] < 0.1, "as ever, with jitter: half of two seconds"
    ours.found(1)
    assert ours.next(0.0) == 0.0 < ours.next(0.0) < 0.1, "anew"


def test_a_master_that_wants_to_be_left_alone_is_while_another_one_is_asked_at_once() -> None:
    ours = search()
    assert ours.next(0.0, wait_s=3.0) == 0.0
    assert not ours.over() and ours.next(0.0, wait_s=1.0) == 3.0 and ours.over()
    ours.next(0.0)
    assert ours.next(0.0) < 3.0, "once"


def test_a_cut_connection_is_made_again_at_the_same_master_and_a_goodbye_leads_to_the_next() -> None:
    ours = search()
    ours.found(1)
    assert 0.0 < ours.lost(0.0) < 0.1 and ours.address == A
    assert ours.left(5.0) == 5.0 and ours.address == B
    alone = search(A)
    alone.found(1)
    assert alone.left(5.0) == alone.lost(5.0) > 5.0
    later = search()
    later.next(0.0)
    later.found(1)
    assert later.left(5.0) == 5.0 and later.address == A, "who was asked before it was found does not count"


def test_a_standby_and_an_older_master_are_not_used() -> None:
    ours = search()
    assert ours.unfit(welcome("standby"), 0.0) == "it is a standby" and not ours.seen_standby
    ours.next(0.0, standby=True)
    assert ours.seen_standby
    assert ours.unfit(welcome(epoch=3), 0.0) == ""
    ours.found(3)
    assert not ours.seen_standby, "since then"
    assert "epoch 2, and 3 was seen" in ours.unfit(welcome(epoch=2), 0.0)
    assert ours.unfit(welcome(epoch=4), 0.0) == ""


def test_an_older_master_is_used_when_for_long_there_is_no_other() -> None:
    ours = search()
    ours.found(3)
    assert ours.unfit(welcome(epoch=1), 0.0) and ours.unfit(welcome(epoch=1), 9.0)
    assert ours.unfit(welcome(epoch=1), 10.0) == "", "a pair that lost its journals begins anew"
    ours.found(3)
    assert ours.unfit(welcome(epoch=1), 12.0), "there is another one again"


def test_one_that_is_known_to_be_active_is_dialled_and_behind_it_the_other_at_once() -> None:
    ours = search()
    ours.next(0.0, standby=True)
    ours.go(A)
    assert (ours.address, ours.next(5.0), ours.address) == (A, 5.0, B)


def test_what_waiting_does_not_mend_is_an_error_that_names_the_master() -> None:
    lowest, highest = wire.VERSIONS
    range_ = f"this side speaks versions {lowest} to {highest}"
    errors = [final(A, Refusal(code, "a sentence", 0, [])) for code in ("incompatible", "denied", "busy")]
    assert [str(error) for error in errors] == [f"{A}: a sentence; {range_}", f"{A}: a sentence", "None"]
    assert [type(error) for error in errors] == [rota.Incompatible, rota.Denied, type(None)]


def test_the_only_master_is_used_whatever_its_epoch() -> None:
    ours = search(A)
    ours.found(3)
    assert ours.unfit(welcome(epoch=1), 0.0) == ""


def test_a_standby_that_says_whom_it_follows_leads_there() -> None:
    ours = search(B, "tcp://d:7700")
    assert ours.learn(A) and not ours.learn(A) and not ours.learn("")
    assert ours.next(0.0, standby=True) == 0.0 and ours.address == A
    for number in range(20):
        ours.learn(f"tcp://c:{number}")
    assert len(ours.masters) == 8


# ---- when the others are asked beside it: without a socket ---------------------------------------------------------


def looks(doubt: Doubt, heard_at: float, until_s: float) -> list[float]:
    """When it asks, if it is looked at whenever it is due."""
    now, found = max(doubt.due, heard_at), []
    while now <= until_s:
        if doubt.look(heard_at, QUIET_S, now):
            found.append(round(now, 3))
        assert doubt.due > now
        now = doubt.due
    return found


def test_silence_is_doubted_after_half_a_second_and_then_four_times_a_second() -> None:
    found = looks(Doubt(), 100.0, 102.0)
    assert found[0] == 100.0 + QUIET_S and found[1] - found[0] == AGAIN_S and len(found) == 7


def test_a_slow_handler_costs_one_small_exchange_a_second() -> None:
    found = looks(Doubt(), 100.0, 160.0)
    assert found[-1] - found[-2] == SLOW_S and len(found) < 75


def test_who_is_heard_is_not_doubted() -> None:
    doubt, now = Doubt(), 100.0
    for _ in range(100):
        now += 0.3
        assert not (now >= doubt.due and doubt.look(now - 0.1, QUIET_S, now))


def test_a_call_after_a_long_rest_is_not_doubted_at_once() -> None:
    doubt = Doubt()
    assert looks(doubt, 100.0, 101.0)
    assert not doubt.look(101.5, QUIET_S, 900.0), "its last word was long ago, since nobody asked"
    assert doubt.due == 900.0 + QUIET_S
    assert not doubt.look(101.5, QUIET_S, 2000.0), "the same, without a word in between"


# ---- real sockets, and a clock that is the test's ------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[FakeFrontend, FakeFrontend]]:
    with FakeFrontend() as first, FakeFrontend() as second:
        second.state = "standby"
        yield first, second


Pair = tuple[FakeFrontend, FakeFrontend]


class Asks:
    """Whoever obeys the first master, asks the second beside it, and has heard nothing since 100.0."""

    def __init__(self, first: FakeFrontend, second: FakeFrontend) -> None:
        self.first, self.second = first, second
        self.beside = Beside([first.address, second.address])
        self.ctx = sockets.context()
        self.now = self.heard_at = 100.0

    def step(self, now: float | None = None) -> str:
        """Who was found."""
        self.now = self.now if now is None else now
        return self.beside.step(self.ctx, self.first.address, self.heard_at, QUIET_S, 2, self.now) or ""

    def until(self, condition: Callable[[], object]) -> None:
        """The clock stands still, and nobody is found."""
        until(lambda: self.step() == "" and condition())

    def connection(self) -> object:
        return self.beside._inquiries[self.second.address].link


@pytest.fixture
def asks(pair: Pair) -> Iterator[Asks]:
    made = Asks(*pair)
    yield made
    made.beside.close()
    made.ctx.term()


def test_nobody_is_asked_before_the_silence_is_doubted_and_then_it_is_looked_for_an_answer(asks: Asks) -> None:
    asks.second.deaf = True
    asks.step()
    assert not asks.beside.open and asks.connection() is None and asks.beside.due == 100.0 + QUIET_S
    looks = []
    asks.step(asks.beside.due)
    while asks.beside.due < 100.0 + QUIET_S + AGAIN_S:
        looks.append(round(asks.beside.due - asks.now, 3))
        asks.step(asks.beside.due)
    assert asks.beside.open and looks == [0.005, 0.01, 0.02, 0.04, 0.08]


def test_a_standby_is_asked_again_over_the_same_connection_and_found_when_it_is_active(asks: Asks) -> None:
    second = asks.second
    asks.step()
    asks.step(asks.beside.due)
    connection = asks.connection()
    asks.until(lambda: second.counts["bye"] == 1)  # it has answered
    asks.step(asks.beside.due)
    assert asks.beside.due == 100.0 + QUIET_S + AGAIN_S, "nothing is looked for before it is asked again"
    second.state = "active"
    asks.step(asks.beside.due)
    asks.until(lambda: second.counts["bye"] == 2)  # active, and of an older epoch
    second.epoch = 2
    found = [asks.step(asks.beside.due), asks.step(asks.beside.due)]  # it may have answered by the second
    until(lambda: second.address in found or asks.step() == second.address)
    assert asks.connection() is connection and second.counts["OperatorHello"] == 3


def test_who_hears_its_own_master_again_asks_nobody_and_leaves_nothing_open(asks: Asks) -> None:
    asks.step()
    asks.step(asks.beside.due)
    assert asks.beside.open and asks.connection() is not None
    asks.heard_at = asks.beside.due
    asks.step(asks.beside.due)
    assert not asks.beside.open and asks.connection() is None
    assert asks.beside.due == 100.0 + QUIET_S + AGAIN_S


def test_one_that_does_not_answer_is_asked_over_another_connection_after_a_second(asks: Asks) -> None:
    asks.second.deaf = True
    asks.step()
    asks.step(asks.beside.due)
    connection = asks.connection()
    while asks.now < 101.4:
        asks.step(asks.beside.due)
        assert asks.connection() is connection
    while asks.now < 101.7:
        asks.step(asks.beside.due)
    assert asks.connection() is not connection
    asks.second.deaf, asks.second.state, asks.second.epoch = False, "active", 2
    until(lambda: asks.step() == asks.second.address)


@pytest.mark.parametrize("answered", [False, True])
def test_one_whose_connection_is_lost_is_asked_over_another(answered: bool, asks: Asks) -> None:
    with FakeFrontend() as gone:
        asks.beside = Beside([asks.first.address, gone.address])
        asks.second = gone
        gone.deaf, gone.state = not answered, "standby"
        asks.step()
        asks.step(asks.beside.due)
        asks.until(lambda: gone.counts["bye"] == answered and (link := asks.connection()) and link.lost() is False)
    with FakeFrontend(ports=(gone.ports[0], gone.ports[1])) as back:
        back.epoch = 2

        def found() -> bool:
            return asks.step(asks.beside.due if asks.beside.due > asks.now else asks.now + AGAIN_S) == back.address

        until(found)
    asks.beside.close()


@pytest.mark.parametrize("answer", [messages.framed(wire.REFUSED, 0, Refusal("busy", "x", 20, [1, 1])), b"x" * 60, b""])
def test_an_answer_that_is_none_is_passed_over(answer: bytes, asks: Asks, monkeypatch: pytest.MonkeyPatch) -> None:
    second, said = asks.second, []

    def nonsense(sock: zmq.Socket[bytes], route: bytes, _: object) -> None:
        said.append(route)
        second.send(sock, route, answer)

    with monkeypatch.context() as patch:
        patch.setattr(second, "_hello", nonsense)
        asks.step()
        asks.step(asks.beside.due)
        asks.until(lambda: said and not asks.beside._under_way())
    second.state, second.epoch = "active", 2

    def found() -> bool:
        return asks.step(max(asks.now, asks.beside.due)) == second.address

    until(found)


# ---- real sockets ---------------------------------------------------------------------------------------------------


def executed(pair: Pair) -> int:
    return sum(each.counts["executed"] for each in pair)


def test_the_active_one_is_found_whichever_is_named_first(pair: Pair) -> None:
    first, second = pair
    for masters in ((first, second), (second, first)):
        with rota.Client(*(each.address for each in masters)) as client:
            before = time.monotonic()
            assert client.call("a.b", 1) == [1]
            assert time.monotonic() - before < SOON_S
    assert second.counts["ClientHello"] == 0


def test_whoever_knows_only_the_standby_is_led_to_the_active_one(pair: Pair) -> None:
    first, second = pair
    second.other = first.address
    knows(first, "a")
    knows(second, "b")
    with rota.Client(second.address) as client:
        assert client.call("a.b", 1) == [1]
        second.take_over(first)
        first.other = second.address
        first.now(first.stand_by)
        assert client.call("a.b", 2) == [2], "and back again"
    first.epoch, first.state, second.state = 3, "active", "standby"
    with rota.Admin(second.address) as admin:
        assert admin.status()["master"]["name"] == "b", "who asks a standby of itself is told"
        assert admin.scale("orders", 3)["master"]["name"] == "a"


def test_a_standby_that_says_nonsense_leads_nowhere(pair: Pair) -> None:
    first, second = pair
    second.other = "http://a,b"
    with rota.Client(second.address) as client, pytest.raises(rota.Unavailable, match="it is a standby"):
        client.options(timeout=0.3).call("a.b", 1)


def test_a_master_that_steps_down_sends_its_clients_to_the_other(pair: Pair) -> None:
    first, second = pair
    with rota.Client(first.address, second.address) as client:
        assert client.call("a.b", 0) == [0]
        first.answer = lambda fake, request: None
        futures = [client.submit("a.b", number) for number in range(20)]
        until(lambda: first.counts["executed"] == 21)
        second.take_over(first)
        second.answer = first.answer
        first.now(first.stand_by)  # from now on it answers WHO
        late = [client.submit("a.b", number) for number in range(20, 30)]
        until(lambda: len(second.seen) == 30, "what was under way is sent again, and what came later")
        assert second.counts["executed"] == 10, "and only that is run there"
        for request in second.seen:
            second.now(lambda request=request: second.reply(request, 0, request.args))  # type: ignore[misc]
        assert [future.result(10) for future in futures + late] == [[number] for number in range(30)]
    assert second.counts["replay"] == 0
    assert all(each.epoch == 1 for each in second.seen if each.number <= 21), "with the epoch of their first send"


def test_a_goodbye_leads_to_the_other_within_a_moment(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.client.search.QUIET_S", 20.0)  # it is not silence that leads there
    first, second = pair
    with rota.Client(first.address, second.address) as client:
        assert client.call("a.b", 0) == [0]
        second.take_over(first)
        first.now(first.say_goodbye)
        first.now(first.stand_by)
        before = time.monotonic()
        assert client.call("a.b", 1) == [1]
        assert time.monotonic() - before < SOON_S
    assert second.counts["executed"] == 1


def test_a_takeover_that_takes_a_second_costs_hardly_more(pair: Pair) -> None:
    first, second = pair
    with rota.Client(first.address, second.address) as client:
        assert client.call("a.b", 0) == [0]
        first.now(first.stand_by)
        future = client.submit("a.b", 1)
        asked = second.counts["OperatorHello"]
        until(lambda: second.counts["OperatorHello"] >= asked + 5, "it is asked again and again")
        second.take_over(first)
        before = time.monotonic()
        assert future.result(10) == [1]
        assert time.monotonic() - before < SOON_S


def test_a_black_hole_is_left_for_the_master_that_took_over(pair: Pair) -> None:
    first, second = pair
    with rota.Client(first.address, second.address) as client:
        assert client.call("a.b", 0) == [0]
        first.deaf = True
        futures = [client.submit("a.b", number) for number in range(10)]
        until(lambda: second.counts["OperatorHello"] >= 3, "the standby is asked beside the silent connection")
        second.take_over(first)
        taken_over = time.monotonic()
        assert [future.result(10) for future in futures] == [[number] for number in range(10)]
        assert time.monotonic() - taken_over < SOON_S
    assert second.counts["replay"] == 0 and second.counts["executed"] == 10


def test_a_black_hole_is_left_by_asyncio_clients_too(pair: Pair) -> None:
    first, second = pair

    async def play() -> None:
        async with rota.AsyncClient(first.address, second.address) as client:
            assert await client.call("a.b", 0) == [0]
            first.deaf = True
            futures = [client.submit("a.b", number) for number in range(10)]
            await asyncio.to_thread(until, lambda: second.counts["OperatorHello"] >= 2)
            second.take_over(first)
            assert await asyncio.gather(*futures) == [[number] for number in range(10)]

    asyncio.run(asyncio.wait_for(play(), 15))
    assert second.counts["executed"] == 10


def test_a_slow_handler_is_waited_for_where_it_runs(pair: Pair) -> None:
    first, second = pair
    first.answer = lambda fake, request: None
    with rota.Client(first.address, second.address) as client:
        future = client.submit("a.b", 7)
        until(lambda: second.counts["bye"] >= 3)  # asked, and answered as a standby
        second.epoch = 5  # one that knows more than the active one, and still is none
        asked = second.counts["OperatorHello"]
        until(lambda: second.counts["OperatorHello"] > asked + 1)
        first.later(lambda: first.reply(first.seen[0], 0, "slow"))
        assert future.result(10) == "slow"
    assert first.counts["ClientHello"] == 1 and second.counts["ClientHello"] == 0


def test_a_dead_machine_costs_a_new_client_a_moment(pair: Pair) -> None:
    first, second = pair
    first.deaf = True
    second.state = "active"
    with rota.Client(first.address, second.address) as client:
        before = time.monotonic()
        assert client.call("a.b", 1) == [1]
        assert time.monotonic() - before < SOON_S


def test_a_master_that_came_back_and_does_not_know_yet_is_not_used(pair: Pair) -> None:
    first, second = pair
    second.state, second.epoch = "active", 5
    with rota.Client(second.address, first.address) as client:
        assert client.call("a.b", 0) == [0]
        second.now(second.stand_by)
        future = client.submit("a.b", 1)
        until(lambda: first.counts["OperatorHello"] >= 3, "it is asked, and left")
        assert first.counts["ClientHello"] == 0 and not future.done()
        second.epoch, second.state = 6, "active"
        assert future.result(10) == [1]
    assert first.counts["ClientHello"] == 0


def test_what_is_given_back_goes_to_the_other_under_a_new_number(pair: Pair) -> None:
    first, second = pair

    def give_back(fake: FakeFrontend, request: Request) -> tuple[int, object]:
        return rota.common.errors.NOT_STARTED, b""

    with rota.Client(first.address, second.address) as client:
        assert client.call("a.b", 0) == [0]
        second.take_over(first)
        first.answer = give_back
        first.now(first.say_goodbye)
        futures = [client.submit("a.b", number) for number in range(50)]
        first.now(first.stand_by)
        assert [future.result(10) for future in futures] == [[number] for number in range(50)]
    assert second.counts["executed"] == 50 and second.counts["replay"] == 0


# ---- operators ------------------------------------------------------------------------------------------------------


def knows(fake: FakeFrontend, name: str, **more: object) -> list[str]:
    """It answers every verb with its name, as active or standby; the list fills with the verbs."""
    verbs: list[str] = []

    def answer(verb: Verb) -> Result:
        verbs.append(verb.verb)
        master = {"name": name, "state": fake.state, "epoch": fake.epoch, "peer": None}
        if fake.state != "active" and verb.verb not in ("status", "events"):
            return Result(verb.id, False, 5, {"error": f"{name} is a standby: ask the active master", "active": ""})
        data = {"schema": 1, "master": master, "events": [], "nodes": [], "names": [], "waited_s": 0.0}
        return Result(verb.id, True, 0, {**data, **more})

    fake.verb = answer
    return verbs


def test_operators_find_the_active_master(pair: Pair) -> None:
    first, second = pair
    knows(first, "a")
    knows(second, "b")
    for masters in ((first, second), (second, first)):
        with rota.Admin([each.address for each in masters]) as admin:
            assert admin.status()["master"]["name"] == "a"


def test_where_no_master_is_active_status_is_what_a_standby_says_of_itself(pair: Pair) -> None:
    _, second = pair
    knows(second, "b")
    with rota.Admin(["tcp://127.0.0.1:1", second.address]) as admin:
        assert admin.status(timeout=5)["master"]["state"] == "standby"
        assert list(admin.events()) == []
        second.state = "active"
        assert admin.status(timeout=5)["master"]["state"] == "active"


def test_a_verb_is_sent_again_to_who_took_over(pair: Pair) -> None:
    first, second = pair
    asked_first, asked_second = knows(first, "a"), knows(second, "b")
    with rota.Admin([first.address, second.address]) as admin:
        admin.status()
        first.state, second.state, second.epoch = "standby", "active", 2  # the connection stays
        assert admin.scale("orders", 3)["master"]["name"] == "b"
        assert admin.status()["master"]["name"] == "b"
    assert asked_first == ["status", "scale"] and asked_second == ["scale", "status"]


def test_a_verb_waits_for_a_takeover(pair: Pair) -> None:
    first, second = pair
    knows(second, "b")
    first.state = "standby"
    with rota.Admin([first.address, second.address]) as admin:
        threading.Timer(0.5, lambda: setattr(second, "state", "active")).start()
        assert admin.scale("orders", 3)["master"]["name"] == "b"


def test_a_verb_waits_on_where_a_standby_may_still_take_over(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.client.operator.STANDBY_S", 0.1)
    first, second = pair
    asked = knows(second, "b")
    first.state = "standby"
    knows(first, "a")
    with rota.Admin([first.address, second.address]) as admin:
        threading.Timer(0.5, lambda: setattr(second, "state", "active")).start()
        assert admin.scale("orders", 3)["master"]["name"] == "b"
    assert asked[-1] == "scale" and asked.count("scale") == 1, "a standby is asked only why"


def test_an_older_master_is_told_nothing(pair: Pair) -> None:
    first, second = pair
    asked = knows(first, "a")
    knows(second, "b")
    second.state, second.epoch = "active", 5
    with rota.Admin([second.address, first.address]) as admin:
        admin.status()
        second.state = "standby"
        threading.Timer(0.5, lambda: setattr(second, "state", "active")).start()
        assert admin.scale("orders", 3)["master"]["name"] == "b"
    assert asked == [], "it came back, and does not know yet that another one took over"


@pytest.mark.parametrize("named", [1, 2])
def test_a_dead_machine_costs_an_operator_a_moment(named: int, pair: Pair) -> None:
    first, second = pair
    knows(first, "a")
    knows(second, "b")
    second.other = first.address
    with rota.Admin([second.address, first.address][:named]) as admin:
        assert admin.scale("orders", 3)["master"]["name"] == "a"
        second.state, second.epoch, first.deaf = "active", 2, True
        before = time.monotonic()
        assert admin.wait("ready", timeout=20)["master"]["name"] == "b"
        assert time.monotonic() - before < 3.5
    with rota.Admin([first.address, second.address]) as admin:
        before = time.monotonic()
        assert admin.status()["master"]["name"] == "b"
        assert time.monotonic() - before < 2.5


def test_a_wait_over_a_silent_connection_goes_on_at_who_took_over(pair: Pair) -> None:
    first, second = pair
    knows(first, "a")
    second.epoch = 2
    with rota.Admin([first.address, second.address]) as admin:
        admin.status()
        knows(second, "b")
        first.deaf = True
        threading.Timer(0.8, lambda: setattr(second, "state", "active")).start()
        before = time.monotonic()
        assert admin.wait("ready", "orders", timeout=20)["master"]["name"] == "b"
        assert time.monotonic() - before < 10, "long before its time is over"


def test_who_gives_up_a_silent_master_while_the_other_is_asked_can_close(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.client.operator.GRACE_S", 0.1)
    first, second = pair
    knows(first, "a")
    admin = rota.Admin([first.address, second.address])
    admin.status()
    asked = second.counts["OperatorHello"]
    first.deaf = True
    with pytest.raises(rota.Timeout, match="did not answer 'wait'"):
        admin.wait("ready", timeout=0)
    assert second.counts["OperatorHello"] > asked
    closing = threading.Thread(target=admin.close, daemon=True)  # which waits for all connections
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_the_only_master_that_stands_by_refuses_and_says_who_is_active(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.client.operator.STANDBY_S", 0.1)
    _, second = pair
    knows(second, "b")
    with rota.Admin(second.address) as admin, pytest.raises(rota.Refused, match="b is a standby"):
        admin.scale("orders", 3)


def test_waiting_for_a_leader_ends_with_an_active_master_or_says_who_stands_by(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.client.operator.GRACE_S", 0.1)
    first, second = pair
    knows(second, "b")
    first.state = "standby"
    with rota.Admin([first.address, second.address]) as admin:
        with pytest.raises(rota.Timeout, match="no master is active .*it is a standby") as caught:
            admin.wait("leader", timeout=0.3)
        assert caught.value.exit_code == 75  # type: ignore[attr-defined]
        threading.Timer(0.3, lambda: setattr(second, "state", "active")).start()
        admin.wait("leader", timeout=10)


def test_waiting_for_a_leader_ends_in_time_though_no_standby_says_why(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.client.operator.FIND_S", 0.3)
    first, second = pair
    first.state = "standby"
    for fake in pair:
        fake.verb = lambda verb: Result(verb.id + 1000, True, 0, {})
    with rota.Admin([first.address, second.address]) as admin:
        with pytest.raises(rota.Timeout, match="no master is active .*it is a standby"):
            admin.wait("leader", timeout=0.3)


UNELECTABLE = "no master can be elected: start n1 again"


def candidate(fake: FakeFrontend) -> None:
    """It stands, and not enough of those that vote are there. As ever it answers nothing but status and events."""
    fake.state = "candidate"

    def answer(verb: Verb) -> Result:
        if verb.verb not in ("status", "events"):
            return Result(verb.id, False, 5, {"error": "b is a standby: ask the active master, a", "active": ""})
        peer = {"name": "a", "liveness": "dead"}
        master = {"name": "b", "state": "candidate", "epoch": 1, "peer": peer, "alarms": [UNELECTABLE]}
        events = [{"number": number} for number in range(1, 6)]
        return Result(verb.id, True, 0, {"schema": 1, "master": master, "events": events})

    fake.verb = answer


@pytest.mark.parametrize("several", [False, True])
def test_where_nobody_can_be_elected_a_verb_says_why_long_before_its_time_is_over(
    pair: Pair, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.client.operator.STANDBY_S", 0.1)
    _, second = pair
    candidate(second)
    with rota.Admin(["tcp://127.0.0.1:1", second.address] if several else second.address) as admin:
        for ask in (lambda: admin.forget("n1"), admin.switchover):
            before = time.monotonic()
            with pytest.raises(rota.Unavailable, match=f"b is a candidate, and {UNELECTABLE}") as caught:
                ask()
            assert caught.value.exit_code == 69  # type: ignore[attr-defined]
            assert time.monotonic() - before < 15


def test_waiting_for_a_leader_goes_on_where_nobody_can_be_elected_and_says_why_at_its_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rota.client.operator.GRACE_S", 0.1)
    _, second = pair
    candidate(second)
    with rota.Admin(["tcp://127.0.0.1:1", second.address]) as admin:
        with pytest.raises(rota.Timeout, match=f"b is a candidate, and {UNELECTABLE}"):
            admin.wait("leader", timeout=0.2)


def test_the_events_of_a_standby_are_cut_as_those_of_an_active_master_are(pair: Pair) -> None:
    _, second = pair
    candidate(second)
    with rota.Admin(second.address) as admin:
        assert [event["number"] for event in admin.events(2, limit=2)] == [4, 5]


def test_followed_events_go_on_at_who_took_over(pair: Pair) -> None:
    first, second = pair
    first.events = [{"number": 1}, {"number": 2}]
    second.events = [{"number": number} for number in (1, 2, 3)]
    with rota.Admin([first.address, second.address]) as admin:
        events = admin.events(follow=True)
        assert [next(events)["number"] for _ in range(2)] == [1, 2]
        first.deaf, second.state, second.epoch = True, "active", 2
        assert next(events)["number"] == 3
        events.close()  # type: ignore[attr-defined]


def switches(first: FakeFrontend, second: FakeFrontend, after_s: float = 0.2) -> list[str]:
    verbs: list[str] = []

    def answer(verb: Verb) -> Result:
        verbs.append(verb.verb)
        if verb.verb == "switchover":
            first.state = "standby"

            def rise() -> None:
                second.epoch, second.state = 2, "active"

            threading.Timer(after_s, rise).start()
            return Result(verb.id, True, 0, {"epoch": 2, "to": "b", "given_back": 7})
        peer = {"name": "b", "address": second.address}
        return Result(verb.id, True, 0, {"master": {"name": "a", "state": "active", "epoch": 1, "peer": peer}})

    first.verb = answer
    return verbs


def test_a_switchover_returns_when_the_other_one_is_active_and_says_what_it_cost(pair: Pair) -> None:
    first, second = pair
    verbs = switches(first, second)
    with rota.Admin(first.address) as admin:  # the active one says where its standby is
        cost = admin.switchover(timeout=10)
    assert 200 <= cost.pop("took_ms") < 10_000
    assert cost == {
        "schema": 1, "from": "a", "to": "fake", "address": second.address, "epoch_before": 1, "epoch": 2,
        "given_back": 7,
    }  # fmt: skip
    assert verbs == ["status", "switchover"]


def test_a_switchover_whose_answer_is_lost_is_not_asked_for_again(pair: Pair) -> None:
    first, second = pair
    verbs = switches(first, second)
    answer = first.verb
    assert answer is not None

    def and_go_deaf(verb: Verb) -> Result:
        first.deaf = verb.verb == "switchover"
        result = answer(verb)
        return result if not first.deaf else result._replace(id=99)

    first.verb = and_go_deaf
    other = knows(second, "b")
    with rota.Admin([first.address, second.address]) as admin:
        cost = admin.switchover(timeout=10)
        assert (cost["epoch"], cost["given_back"]) == (2, None)
    assert verbs == ["status", "switchover"] and "switchover" not in other


def test_a_switchover_ends_with_who_is_active_in_a_higher_epoch_whatever_the_first_one_says(pair: Pair) -> None:
    first, second = pair
    knows(first, "a")
    knows(second, "b")
    answer = first.verb
    assert answer is not None

    def stays_active(verb: Verb) -> Result:
        if verb.verb == "switchover":
            second.epoch = 2  # and it stands by still
            threading.Timer(0.2, lambda: setattr(second, "state", "active")).start()
        return answer(verb)

    first.verb = stays_active
    with rota.Admin([first.address, second.address]) as admin:
        cost = admin.switchover(timeout=10)
        assert cost["address"] == second.address and cost["took_ms"] >= 200
        assert admin.status()["master"]["name"] == "b", "nor is it asked any more"


def test_a_switchover_after_which_the_first_one_is_active_again_has_failed_and_says_where_to_look(pair: Pair) -> None:
    first, second = pair
    name = "fake"  # as it says in its WELCOME
    peer = {"name": "b", "address": second.address}

    def answer(verb: Verb) -> Result:
        if verb.verb == "switchover":
            first.epoch = 2
            return Result(verb.id, True, 0, {"epoch": 2, "to": "b", "given_back": 0})
        return Result(verb.id, True, 0, {"master": {"name": name, "state": "active", "epoch": 1, "peer": peer}})

    first.verb = answer
    said = f"b did not take over: fake is active again, with epoch 2; `rota role -m {second.address}` says"
    with rota.Admin([first.address, second.address]) as admin, pytest.raises(rota.Error, match=said) as caught:
        admin.switchover(timeout=10)
    assert caught.value.exit_code == 1  # type: ignore[attr-defined]


def test_a_switchover_passes_over_a_first_one_that_hangs_since(pair: Pair) -> None:
    first, second = pair
    switches(first, second, after_s=0.6)
    answer = first.verb
    assert answer is not None

    def and_hang(verb: Verb) -> Result:
        first.deaf = verb.verb == "switchover"
        return answer(verb)

    first.verb = and_hang
    with rota.Admin(first.address) as admin:
        assert admin.switchover(timeout=10)["address"] == second.address


def test_a_switchover_that_takes_too_long_goes_on_and_says_so(pair: Pair) -> None:
    first, second = pair
    switches(first, second, after_s=5.0)
    knows(second, "b")
    with rota.Admin([first.address, second.address]) as admin, pytest.raises(rota.Timeout) as caught:
        admin.switchover(timeout=0.4)
    assert caught.value.exit_code == 75  # type: ignore[attr-defined]


def test_a_switchover_after_which_nobody_can_be_elected_says_why_at_its_end(pair: Pair) -> None:
    first, second = pair

    def hand_over(verb: Verb) -> Result:
        if verb.verb == "switchover":
            candidate(first)
            candidate(second)
            return Result(verb.id, True, 0, {"epoch": 2, "to": "b", "given_back": 0})
        peer = {"name": "b", "address": second.address}
        return Result(verb.id, True, 0, {"master": {"name": "a", "state": "active", "epoch": 1, "peer": peer}})

    first.verb = hand_over
    with rota.Admin([first.address, second.address]) as admin:
        with pytest.raises(rota.Timeout, match=f"higher epoch than 1 yet.*b is a candidate, and {UNELECTABLE}"):
            admin.switchover(timeout=0.4)
