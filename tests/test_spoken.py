"""Whatever well-formed peers say, in whatever order: no core raises, spins, or leaves a verb unanswered (`make spoken`
for more).
"""

from __future__ import annotations

from typing import Any

import pytest
from spoken.history import Violation, fault, play, shortest, steps
from spoken.worlds import WORLDS

from rota.client.calls import Calls
from rota.common.wire import KEYED, META, MORE, Large
from rota.gateway.core import response
from rota.master.core import dispatch
from rota.master.core.operators import Operators
from rota.master.core.staffing import Staffing
from rota.master.core.verbs import Verbs
from rota.worker.async_serving import _Serving
from rota.worker.async_streams import AsyncStream
from rota.worker.page import Page
from rota.worker.streams import Handle

MASTERS = ("master", "stopped", "ill", "poison", "stream", "heir", "forgetful", "group", "large")
STEPS = 80


@pytest.mark.parametrize("name", MASTERS)
def test_a_master_bears_whatever_it_is_told(name: str) -> None:
    for seed in range(1, 16):
        play(WORLDS[name], steps(WORLDS[name], seed, STEPS))


@pytest.mark.parametrize("name", [name for name in WORLDS if name not in MASTERS])
def test_all_others_bear_whatever_they_are_told(name: str) -> None:
    for seed in range(1, 31):
        play(WORLDS[name], steps(WORLDS[name], seed, STEPS))


def raises(*_: object) -> Any:
    raise KeyError("nobody has thought of it")


@pytest.mark.parametrize(
    ("where", "name", "planted", "wrong"),
    [
        (Verbs, "pause", raises, "KeyError"),
        (Staffing, "busy", lambda staff: True, "busy with nothing"),
        (Operators, "_wake", lambda operators, now: None, "wait: no answer"),
    ],
)
def test_a_fault_is_found_and_shown_in_few_steps(
    where: type, name: str, planted: Any, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, planted)
    world = WORLDS["master"]
    histories = (steps(world, seed, STEPS) for seed in range(1, 20))
    history, found = next((history, found) for history in histories if wrong in (found := fault(world, history)))
    short = shortest(world, history, found)
    assert len(short) <= 4 and fault(world, short) == found


def patched_again(frame: Large, head: bytes) -> bool:
    frame.buffer[: len(head)] = head
    return True


@pytest.mark.parametrize(
    ("name", "where", "what", "planted", "wrong"),
    [
        ("one master", Calls, "again", lambda calls, call: None, "0 outcomes"),
        ("process", Page, "start", lambda *_: True, "what was taken back or is fenced off runs"),
        ("gateway", response, "_CONTROLS", b"", "head of an answer"),
        ("loop", _Serving, "_cancel_overdue", lambda *_: None, "was not cancelled"),
        ("loop", AsyncStream, "_send", Handle._send, "is not looked at"),
        ("large", Large, "with_head", patched_again, "was touched"),
        ("large", dispatch, "_TO_PROCESS", META | KEYED | MORE, "not to"),
    ],
)
def test_a_fault_of_any_other_is_found(
    name: str, where: Any, what: str, planted: Any, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, what, planted)
    world = WORLDS[name]
    histories = (steps(world, seed, STEPS) for seed in range(1, 40))
    assert any(wrong in fault(world, history) for history in histories)


def test_a_history_without_an_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoken.history.STUCK_S", 1)

    def spins(*_: object) -> Any:
        while True:
            pass

    monkeypatch.setattr(Verbs, "pause", spins)
    world = WORLDS["master"]
    with pytest.raises(Violation, match="does not come back"):
        for seed in range(1, 20):
            play(world, steps(world, seed, STEPS))
