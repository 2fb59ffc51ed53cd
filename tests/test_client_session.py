"""A client's session over connections that are none, and by a clock of the test: what is rare over real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from spoken.links import FakeLink, pretended

from rota.client import beside, session
from rota.client.calls import Call
from rota.client.session import BATCH, OPEN, PARTED, Session
from rota.common import messages, wire
from rota.common.body import encode_result
from rota.common.errors import Error, Timeout

A, B = "tcp://a:7700", "tcp://b:7700"
TOKEN = 7


class Asked(Call):
    address = b"a.b", 3, 0
    body = b""
    outcome: object = None

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

    def say(self, *frames: bytes) -> None:
        self.link.inbox.extend(frames)
        self.step()

    def call(self, timeout: float = 30.0) -> Asked:
        made = Asked()
        made.deadline = self.now + timeout
        assert self.session.calls.submit(made) is None
        self.step()
        return made

    def opened(self) -> Client:
        while self.session.phase is not OPEN:
            self.step(max(0.0, min(1.0, self.session.next_deadline() - self.now)))
            if self.session.link is not None:
                self.say(wire.head(wire.WELCOME, TOKEN) + messages.encode(messages.Welcome(1, 1, "m", born=1)))
        return self


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:
    with pretended(session, beside):
        yield


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
