"""A client's session over connections that are none, and by a clock of the test: what is rare over real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from spoken.links import FakeLink, pretended

from rota.client import beside, session
from rota.client.calls import Call
from rota.client.search import AGAIN_S, GREETED_S, QUIET_S, UNGREETED_S
from rota.client.session import BATCH, GREETING, OPEN, PARTED, Session
from rota.common import messages, wire
from rota.common.body import encode_result
from rota.common.errors import NOT_STARTED, Cancelled, Denied, Error, Timeout

A, B = "tcp://a:7700", "tcp://b:7700"
TOKEN = 7


class Asked(Call):
    address = b"a.b", 3, 0
    body = b""
    outcome: object = None

    @classmethod
    def until(cls, deadline: float) -> Asked:
        made = cls()
        made.deadline = deadline
        return made

    def finish(self, value: object, error: Error | None) -> None:
        assert self.outcome is None
        self.outcome = error or value


class Client:
    """As the loops of `client.py` and `aio.py`."""

    def __init__(self, *masters: str) -> None:
        self.now = 1000.0
        self.session = Session(masters or (A,), chance=lambda: 0.5)

    @property
    def link(self) -> FakeLink:
        link = self.session.link
        assert isinstance(link, FakeLink)
        return link

    def step(self, seconds: float = 0.0) -> None:
        """Until there is nothing to do then."""
        self.now += seconds
        while self.session.receive(self.now) or self.session.awaited():
            self.session.send(self.now)
        self.session.send(self.now)

    def pass_by(self, seconds: float) -> None:
        """By its own clock."""
        end = self.now + seconds
        while self.now < end:
            self.step(max(0.001, min(end, self.session.next_deadline()) - self.now))

    def beside(self) -> list[FakeLink]:
        """Its connections to the masters that it asks while nothing comes from its own."""
        return [link for link in FakeLink.made if not link.closed and link is not self.session.link]

    def say(self, *frames: bytes) -> None:
        self.link.inbox.extend(frames)
        self.step()

    def call(self, timeout: float = 30.0) -> Asked:
        made = Asked.until(self.now + timeout)
        assert self.session.calls.submit(made) is None
        self.step()
        return made

    def dialled(self) -> str:
        """By its own clock: the master that it asks next."""
        while self.session.link is None:
            self.step(max(0.0, self.session.next_deadline() - self.now))
        return self.link.address

    def opened(self) -> Client:
        while self.session.phase is not OPEN:
            self.dialled()
            self.say(WELCOME)
        return self

    def said(self, kind: int) -> list[wire.Head]:
        """What it has said over the connection that it has, and which is of this kind."""
        frames = [frame for sent in self.link.sent for frame in unbundled(sent)]
        return [head for head in map(wire.parse_head, frames) if head.kind == kind]


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:
    with pretended(session, beside):
        yield


def welcome(epoch: int = 1, state: str = "active") -> bytes:
    return wire.head(wire.WELCOME, TOKEN) + messages.encode(messages.Welcome(1, epoch, "m", born=1, state=state))


WELCOME = welcome()


def unbundled(frame: bytes) -> list[bytes]:
    fields = wire.parse(frame)
    return wire.split(frame, fields) if fields[3] == wire.BUNDLE else [frame]


def refusal(code: str, wait_ms: int = 0) -> bytes:
    return messages.framed(wire.REFUSED, 0, messages.Refusal(code, "a sentence", wait_ms, [1, 1]))


def answer(number: int) -> bytes:
    return wire.head(wire.ANSWER, TOKEN, number=number, upto=number) + encode_result(number)


BYE = wire.head(wire.BYE, TOKEN, number=10_000)


@pytest.mark.parametrize("last", [(), (BYE,), (b"damaged",), (wire.head(wire.WHO, TOKEN),)])
def test_all_that_came_before_the_end_of_a_connection_counts(last: tuple[bytes, ...]) -> None:
    """Behind a goodbye that it read so late the I/O thread failed: there was no connection any more to be given up."""
    client = Client().opened()
    calls = [client.call() for _ in range(3 * BATCH)]
    client.link.inbox.extend([*(answer(call.number) for call in calls), *last])
    client.link.gone = True
    client.session.receive(client.now)
    assert [call.outcome for call in calls] == [call.number for call in calls]
    assert (client.session.phase, client.session.link) == (PARTED, None)
    assert client.opened().call().number > 0


def test_a_connection_is_given_up_as_silent_only_where_a_deadline_should_have_been_told() -> None:
    client = Client().opened()
    link = client.link
    client.step(50.0)  # nothing is asked
    slow = client.call(timeout=300.0)
    client.step(40.0)  # a slow handler
    client.say(answer(slow.number))
    late = client.call(timeout=0.1)
    client.step(0.9)  # late is the call, and the master was heard a moment ago
    assert isinstance(late.outcome, Timeout) and client.session.link is link
    client.call(timeout=0.1)
    client.step(1.0)
    assert client.session.link is not link and client.session.phase is PARTED


def test_a_deadline_that_passes_before_there_is_a_greeting_gives_nothing_up() -> None:
    client = Client()
    call = client.call(timeout=1.5)
    client.dialled()
    asked = client.link
    client.step(2.0)
    assert call.outcome is not None and client.session.link is asked


def test_behind_a_goodbye_of_the_master_the_next_one_is_asked_at_once_for_what_that_had_not_accepted() -> None:
    client = Client(A, B).opened()
    first, second = client.call(), client.call()
    client.say(wire.head(wire.BYE, TOKEN, number=first.number))
    at = client.now
    assert (client.dialled(), client.now) == (B, at)
    client.opened()
    resent, anew = client.said(wire.REQUEST)
    assert (resent.number, bool(resent.flags & wire.RESENT)) == (first.number, True)
    assert anew.number == second.number == 3 and not anew.flags & wire.RESENT


def test_who_leaves_waits_no_longer_than_for_the_word_that_its_session_is_over() -> None:
    client = Client().opened()
    call = client.call()
    client.session.leave(client.now)
    assert isinstance(call.outcome, Cancelled)
    for _ in range(3):
        assert client.session.leaving(client.now) > 0
    assert len(client.said(wire.BYE)) == 1 == len(client.said(wire.ACK))
    client.say(wire.head(wire.WHO, TOKEN))
    assert client.session.leaving(client.now) == 0
    client.session.close()
    assert client.session.phase is PARTED


def test_what_has_the_token_of_an_earlier_connection_is_dropped() -> None:
    client = Client().opened()
    call = client.call()
    client.say(wire.head(wire.ANSWER, TOKEN + 1, number=call.number, upto=1) + encode_result("stale"))
    client.say(wire.head(wire.BYE, TOKEN + 1))
    assert (call.outcome, client.session.damaged, client.session.phase) == (None, 2, OPEN)


def test_a_connection_that_takes_nothing_keeps_the_order_of_what_waits_for_it() -> None:
    client = Client().opened()
    client.link.full = True
    calls = [client.call() for _ in range(3)]
    assert not client.said(wire.REQUEST)
    client.link.full = False
    assert client.session.awaited(), "there is room: nothing else would tell"
    calls.append(client.call())
    assert [head.number for head in client.said(wire.REQUEST)] == [call.number for call in calls] == [1, 2, 3, 4]


def test_what_a_connection_takes_is_not_said_again_when_it_did_not_take_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client().opened()
    send, takes = client.link.send, iter([True, True, False, False])
    monkeypatch.setattr(client.link, "send", lambda frame: next(takes, True) and send(frame))
    monkeypatch.setattr(Asked, "body", bytes(wire.BUNDLE_BYTES_MAX))  # each goes by itself
    calls = [client.session.calls.submit(Asked.until(client.now + 30.0)) for _ in range(4)]
    assert calls == [None] * 4
    client.step()
    assert [head.number for head in client.said(wire.REQUEST)] == [1, 2]
    while next(takes, None) is not None:
        pass
    client.step()
    assert [head.number for head in client.said(wire.REQUEST)] == [1, 2, 3, 4]


def test_what_comes_in_one_frame_is_taken_one_by_one() -> None:
    client = Client().opened()
    calls = [client.call() for _ in range(4)]
    given_back = wire.head(wire.ANSWER, TOKEN, number=2, upto=2, code=NOT_STARTED)
    failed = wire.head(wire.ANSWER, TOKEN, number=3, upto=3, code=Timeout.code) + encode_result({"cause": "late"})
    ((_, frame),) = wire.bundles([answer(1), given_back, failed, answer(4)])
    client.say(frame)
    first, again, late, last = (call.outcome for call in calls)
    assert (first, again, last) == (1, None, 4) and isinstance(late, Timeout)
    assert [head.number for head in client.said(wire.REQUEST)] == [1, 2, 3, 4, 5]
    client.say(wire.head(wire.ANSWER, TOKEN, number=5, upto=5) + encode_result("in the end"))
    assert calls[1].outcome == "in the end"


def test_what_is_behind_the_end_of_a_session_in_one_frame_goes_with_it() -> None:
    client = Client().opened()
    call = client.call()
    ((_, frame),) = wire.bundles([wire.head(wire.WHO, TOKEN), answer(call.number)])
    client.say(frame)
    assert (call.outcome, client.session.phase) == (None, GREETING)


def test_a_frame_that_cannot_be_read_may_be_an_answer_which_is_asked_for_over_a_new_connection() -> None:
    client = Client().opened()
    call = client.call()
    damaged = bytearray(answer(call.number))
    damaged[8] ^= 1
    client.say(bytes(damaged))
    assert client.session.damaged == 1 and client.session.calls.unreachable == {A: "a damaged frame"}
    (request,) = client.opened().said(wire.REQUEST)
    assert (request.number, bool(request.flags & wire.RESENT)) == (call.number, True)


def test_a_refusal_for_good_ends_what_waits_when_all_masters_have_said_it_twice() -> None:
    client = Client(A, B)
    call = client.call()
    for asked in (A, B, A):
        assert client.dialled() == asked
        client.say(refusal("denied"))
        assert call.outcome is None
    assert client.dialled() == B
    client.say(refusal("denied"))
    assert isinstance(call.outcome, Denied) and str(call.outcome) == f"{A}: a sentence"


def test_a_master_that_answers_in_between_is_not_said_to_refuse_for_good() -> None:
    client = Client()
    for _ in range(2):
        client.dialled()
        client.say(refusal("denied"))
        client.opened()
        client.link.gone = True
        client.step()
    call = client.call()
    client.dialled()
    client.say(refusal("denied"))
    assert call.outcome is None


def test_a_busy_master_is_left_alone_for_as_long_as_it_says() -> None:
    client = Client()
    client.call(timeout=100.0)
    client.dialled()
    client.say(refusal("busy", 20_000))
    at = client.now
    client.dialled()
    assert client.now == at + 20.0


def test_a_master_that_does_not_greet_is_given_up() -> None:
    client = Client()
    client.call(timeout=100.0)
    client.dialled()
    silent = client.link
    client.step(GREETED_S - 0.01)
    assert client.session.link is silent and client.session.calls.unreachable == {A: "no answer yet"}
    client.step(0.02)
    assert client.session.link is None and client.session.calls.unreachable == {A: "no answer"}
    client.dialled()
    client.say(WELCOME)  # of the control socket
    assert client.session.phase is GREETING
    client.step(GREETED_S + 0.01)
    assert client.session.link is None


def test_while_its_master_is_silent_the_other_one_is_asked_and_taken_once_it_is_the_newer_active_one() -> None:
    client = Client(A, B).opened()
    client.pass_by(60.0)
    assert not client.beside(), "nothing is waited for"
    client.call(timeout=100.0)
    client.pass_by(QUIET_S - 0.01)
    assert not client.beside()
    client.pass_by(0.1)
    (other,) = client.beside()
    assert other.address == B and len(other.sent) == 1
    for frame in (welcome(1), welcome(2, "standby")):
        other.inbox.append(frame)
        client.pass_by(AGAIN_S + 0.1)
        assert client.session.phase is OPEN and client.beside() == [other]
    other.inbox.append(welcome(2))
    client.pass_by(AGAIN_S)
    assert client.link.address == B and not client.beside()
    assert client.session.calls.unreachable == {A: "silent", B: "no answer yet"}


def test_nobody_else_is_asked_any_more_when_the_master_is_heard() -> None:
    client = Client(A, B).opened()
    first, _ = client.call(timeout=100.0), client.call(timeout=100.0)
    client.pass_by(QUIET_S + 0.1)
    assert client.beside()
    client.say(answer(first.number))
    client.pass_by(0.1)
    assert not client.beside() and client.session.phase is OPEN


def test_a_master_that_does_not_greet_is_left_for_another_one_that_is_active() -> None:
    client = Client(A, B)
    client.call(timeout=100.0)
    assert client.dialled() == A
    client.pass_by(UNGREETED_S + 0.05)
    (other,) = client.beside()
    other.inbox.append(welcome(0))
    client.pass_by(0.1)
    assert client.link.address == B and client.now < 1001.0


def test_closing_says_goodbye_once_ends_what_waits_and_leaves_no_connection() -> None:
    client = Client(A, B).opened()
    sent = client.call(timeout=100.0)
    client.pass_by(QUIET_S + 0.1)
    assert client.beside()
    client.link.full = True
    waits = client.call()
    client.link.full = False
    last = client.link
    client.session.close(Error("the end"))
    assert [str(call.outcome) for call in (sent, waits)] == ["the end"] * 2
    assert [wire.parse_head(frame).kind for frame in last.sent].count(wire.BYE) == 1
    assert all(link.closed for link in FakeLink.made)


def test_who_closes_without_a_reason_has_cancelled() -> None:
    client = Client().opened()
    call = client.call()
    client.session.close()
    assert isinstance(call.outcome, Cancelled) and str(call.outcome) == "the client was closed"


def test_who_has_said_goodbye_does_not_say_it_again_when_it_closes() -> None:
    client = Client().opened()
    call = client.call()
    client.session.leave(client.now, Error("the end"))
    client.session.leaving(client.now)
    last = client.link
    client.session.close()
    assert str(call.outcome) == "the end"
    assert [wire.parse_head(frame).kind for frame in last.sent].count(wire.BYE) == 1
