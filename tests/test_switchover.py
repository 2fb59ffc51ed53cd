"""rota switchover: what it prints, how it exits, and what it waits for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_frontend import FakeFrontend
from waiting import until

from rota.cli import switchover
from rota.cli.main import main
from rota.common import messages

Pair = tuple[FakeFrontend, FakeFrontend]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The first is active, the second follows it; each answers `status` and `switchover` as a master does."""
    with FakeFrontend() as first, FakeFrontend() as second:
        second.state = "standby"
        for own, other, name in ((first, second, "a"), (second, first, "b")):
            own.verb = answers(own, other, name)
        yield first, second


def answers(own: FakeFrontend, other: FakeFrontend, name: str, liveness: str = "live") -> Any:
    def answer(verb: messages.Verb) -> messages.Result:
        if verb.verb == "switchover":
            assert verb.args == {"reason": "kernel"} or verb.args == {"force": True}
            rising = own if verb.args.get("force") else other
            (other if rising is own else own).state = "standby"

            def rise() -> None:
                rising.epoch, rising.state = 2, "active"

            threading.Timer(0.1, rise).start()
            return messages.Result(verb.id, True, 0, {"schema": 1, "epoch": 1, "to": "b", "given_back": 7})
        peer = {"name": "b" if name == "a" else "a", "address": other.address, "liveness": liveness}
        master = {"name": name, "state": own.state, "epoch": own.epoch, "peer": peer, "alarms": []}
        return messages.Result(verb.id, True, 0, {"schema": 1, "master": master, "services": [], "nodes": []})

    return answer


def rota(*words: str) -> Result:
    return CliRunner().invoke(main, [*words])


def test_it_says_who_is_active_and_what_it_cost(pair: Pair) -> None:
    result = rota("switchover", "--reason", "kernel", "-m", pair[0].address)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.startswith("fake is active with epoch 2, after ")
    assert first.endswith("; 7 requests given back, their clients send them again")
    assert second == "a was, with epoch 1"


def test_as_json_it_has_the_cost_and_what_the_new_master_says_of_itself(pair: Pair) -> None:
    both = f"{pair[0].address},{pair[1].address}"
    reply = json.loads(rota("switchover", "--reason", "kernel", "-m", both, "--json").stdout)
    assert (reply["schema"], reply["epoch_before"], reply["epoch"], reply["given_back"]) == (1, 1, 2, 7)
    assert reply["master"]["state"] == "active" and reply["master"]["name"] == "b"


def test_it_is_done_though_the_new_master_does_not_tell_of_itself(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchover, "LOOK_S", 0.2)
    first, second = pair
    second.verb = lambda verb: messages.Result(verb.id + 1000, True, 0, {})  # to another question
    result = rota("switchover", "--reason", "kernel", "-m", first.address, "--json")
    assert result.exit_code == 0 and "what fake is like now is not known: " in result.stderr
    reply = json.loads(result.stdout)
    assert (reply["epoch"], reply["master"]) == (2, None)


def test_without_time_to_wait_it_is_asked_for_all_the_same(pair: Pair) -> None:
    result = rota("switchover", "--timeout", "0s", "--reason", "kernel", "-m", pair[0].address)
    assert result.exit_code == 75
    until(lambda: pair[1].state == "active")


def test_who_handed_over_and_is_active_again_since_the_other_could_not_is_exit_1(pair: Pair) -> None:
    """Nobody should take it for a machine that may be switched off now."""
    first, second = pair

    def stand_again(verb: messages.Verb) -> messages.Result:
        if verb.verb == "switchover":
            first.epoch = 3
            return messages.Result(verb.id, True, 0, {"schema": 1, "epoch": 1, "to": "b", "given_back": 7})
        peer = {"name": "b", "address": second.address}
        master = {"name": "fake", "state": "active", "epoch": 1, "peer": peer}  # the name with which it greets
        return messages.Result(verb.id, True, 0, {"schema": 1, "master": master})

    first.verb = stand_again
    result = rota("switchover", "--reason", "kernel", "-m", first.address)
    assert result.exit_code == 1, result.output
    text = f"b did not take over: fake is active again, with epoch 3; `rota role -m {second.address}` says"
    assert text in result.stderr


def test_a_refusal_is_exit_5(pair: Pair) -> None:
    answer = pair[0].verb
    assert answer is not None
    pair[0].verb = lambda verb: (
        messages.Result(verb.id, False, 5, {"error": "no standby is in sync"})
        if verb.verb == "switchover"
        else answer(verb)
    )
    result = rota("switchover", "-m", pair[0].address)
    assert result.exit_code == 5 and "no standby is in sync" in result.stderr


def test_force_is_said_to_a_standby_whose_active_is_gone(pair: Pair) -> None:
    first, second = pair
    first.deaf = True
    result = rota("switchover", "--force", "-m", second.address, "--timeout", "10s")
    assert result.exit_code == 0, result.output
    assert second.state == "active"


def test_at_is_refused_by_day_where_there_is_nobody_to_hand_over_to(pair: Pair) -> None:
    first, second = pair
    first.verb = answers(first, second, "a", liveness="dead")
    result = rota("switchover", "--at", "03:30", "-m", first.address)
    assert result.exit_code == 5 and "its standby b is dead" in result.stderr


@pytest.mark.parametrize("wrong", ["3", "24:00", "12:60", "soon"])
def test_what_is_no_time_of_day_is_a_wrong_command_line(wrong: str) -> None:
    result = rota("switchover", "--at", wrong)
    assert result.exit_code == 2 and "HH:MM expected" in result.stderr


def test_the_next_time_of_day_is_today_or_tomorrow() -> None:
    noon = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
    assert switchover._next((12, 30), noon) == noon + 1800
    assert time.localtime(switchover._next((11, 30), noon))[:5] == (2026, 11, 23, 11, 30)
    last = time.mktime((2026, 12, 31, 12, 0, 0, 0, 0, -1))
    assert time.localtime(switchover._next((11, 30), last))[:5] == (2027, 1, 1, 11, 30)


def test_waiting_says_how_long_it_still_is_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    switchover._wait_until(1500.0, lambda: now[0], sleep)
    assert now[0] == 1500.0
    said = [line.partition("in ")[2].partition(";")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == ["25m", "15m", "5m", "1m"]
