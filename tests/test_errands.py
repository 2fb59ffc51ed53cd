"""Lists of steps and notifications, as decisions: what runs next, what is tried again, what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rota.common import exits
from rota.common.settings import NotifySettings, StandbySettings
from rota.common.settings.notify import DEAD, KINDS, LIVE, RETURN, STEP_FAILED, TAKEOVER
from rota.master.core.errands import (
    ACTIVE,
    CLOSED,
    LEAVE_S,
    QUEUE_MAX,
    SEND_MORE_S,
    STANDBY,
    End,
    Errands,
    Programs,
    Run,
)

OPS = replace(NotifySettings(), to=("ops@example.com",))
CHAT = replace(NotifySettings(), to=("http://chat/hook",))


class Desk:
    """The core with a clock that a test moves, and commands that end when a test says so."""

    def __init__(self, receivers: dict[str, NotifySettings] | None = None, **lists: Any) -> None:
        self.now = 100.0
        self.told: list[tuple[str, str, str]] = []
        self.receivers = receivers or {}
        self.settings = replace(StandbySettings(), **lists)
        self.core = Errands(
            "b",
            "boot",
            "tcp://127.0.0.1:7700",
            self.settings,
            self.receivers,
            Programs(("rota",), ("send",)),
            lambda *told: self.told.append(told),
            lambda: 1e9 + self.now,
        )
        self.core.peer = "tcp://a:7700"
        self.running: list[Run] = []
        self.ended: list[int] = []
        self.core.became(STANDBY, "started", self.now)

    def became(self, state: str) -> list[str]:
        self.core.became(state, f"now {state}", self.now)
        return self.commands()

    def take(self) -> None:
        for effect in self.core.take():
            if isinstance(effect, End):
                self.ended.append(effect.number)
            else:
                self.running.append(effect)

    def commands(self) -> list[str]:
        """All that run, of lists."""
        self.take()
        return [" ".join(run.argv) for run in self.running if run.argv != ("send",)]

    def notes(self) -> list[dict[str, Any]]:
        """All that are being sent."""
        self.take()
        return [json.loads(run.text) for run in self.running if run.argv == ("send",)]

    def kinds(self) -> list[str]:
        return [each["note"]["kind"] for each in self.notes()]

    def end(self, exit: int | None = 0, output: str = "", at: int = 0) -> None:
        self.take()
        self.core.finished(self.running.pop(at).number, exit, output, self.now)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)

    def events(self, kind: str) -> list[str]:
        return [text for each, _, text in self.told if each == kind]


# ---- lists ---------------------------------------------------------------------------------------------------------


def test_steps_run_one_at_a_time_and_in_order() -> None:
    desk = Desk(on_takeover=("run first 'a b'", "run second"))
    assert desk.became(ACTIVE) == ["first a b"] and desk.running[0].argv == ("first", "a b")
    desk.after(2.0)
    desk.end()
    assert desk.commands() == ["second"]
    desk.end()
    assert desk.commands() == [] and not desk.core.busy(desk.now)
    assert desk.events("step") == [
        f"on_takeover: run {text}" for text in ("first 'a b': done in 2.0 s", "second: done in 0.0 s")
    ]


def test_each_state_has_its_list_and_the_same_state_again_is_nothing() -> None:
    desk = Desk(on_takeover=("run up",), on_return=("run down",))
    assert desk.commands() == ["down"]  # what an earlier life left
    desk.end()
    assert desk.became(ACTIVE) == ["up"] and desk.became(ACTIVE) == ["up"]
    desk.end()
    assert desk.became(STANDBY) == ["down"]


def test_a_step_that_fails_ends_its_list_and_says_what_it_said() -> None:
    desk = Desk({"ops": OPS}, on_takeover=("run up --now", "run never", "run never"))
    desk.became(ACTIVE)
    desk.end(exit=3, output="one\ntwo: no such device\n")
    assert desk.commands() == []
    (text,) = desk.events(STEP_FAILED)
    assert text == (
        "on_takeover, step 1 of 3: run up --now: exit 3; the 2 after it are not run: one | two: no such device"
    )
    assert desk.core.alarms() == [text]
    desk.end()  # the notification of the takeover
    assert desk.notes()[0]["note"]["kind"] == STEP_FAILED and desk.notes()[0]["note"]["text"] == text
    desk.became(STANDBY)
    assert desk.core.alarms() == []


@pytest.mark.parametrize(("exit", "how"), [(None, "ended after 30.0 s"), (-11, "signal 11"), (127, "exit 127")])
def test_a_step_fails_by_its_exit_code_its_signal_or_its_time(exit: int | None, how: str) -> None:
    desk = Desk(on_takeover=("run up",))
    desk.became(ACTIVE)
    assert desk.running[0].timeout_s == 30
    desk.now += 30
    desk.end(exit)
    assert desk.events(STEP_FAILED)[0].endswith(how) and not desk.core.busy(desk.now)


def test_services_are_started_and_stopped_here_on_takeover_and_at_the_other_master_on_return() -> None:
    desk = Desk(on_takeover=("stop reports",), on_return=("start reports",))
    reason = "--reason on_{} of b --master"
    stop = f"rota maintenance reports on --stop --no-wait {reason.format('takeover')} tcp://127.0.0.1:7700"
    assert desk.became(ACTIVE) == [stop]
    desk.end()
    assert desk.became(STANDBY) == [f"rota maintenance reports off {reason.format('return')} tcp://a:7700"]


def test_at_a_start_services_are_left_as_they_are_on_record() -> None:
    desk = Desk(on_return=("start reports", "run down"))
    assert desk.commands() == ["down"]


@pytest.mark.parametrize("exit", [exits.NOT_FOUND, exits.UNREACHABLE, exits.FAILED, None])
def test_a_service_that_is_not_there_yet_is_tried_again_within_the_time_of_a_step(exit: int | None) -> None:
    desk = Desk(on_takeover=("start orders", "run up"))
    desk.became(ACTIVE)
    desk.end(exit)
    assert desk.commands() == [] and desk.core.next_deadline() == desk.now + 0.5
    desk.after(0.5)
    assert len(desk.commands()) == 1 and desk.running[0].timeout_s == 29.5
    desk.after(0.5)
    assert len(desk.commands()) == 1 and desk.core.next_deadline() > 1e9  # it runs
    desk.end()
    assert desk.commands() == ["up"]


def test_a_service_that_never_comes_fails_its_step() -> None:
    desk = Desk(on_takeover=("start order",))
    desk.became(ACTIVE)
    tried = 0
    for _ in range(100):
        if desk.commands():
            tried += 1
            desk.end(exits.NOT_FOUND, "there is no service 'order'")
        desk.after(0.5)
    assert tried == 60  # in 30 s
    assert "exit 4: there is no service 'order'" in desk.events(STEP_FAILED)[0] and desk.core.next_deadline() > 1e9


def test_a_service_that_may_not_be_stopped_fails_at_once() -> None:
    desk = Desk(on_takeover=("stop orders",))
    desk.became(ACTIVE)
    desk.end(exits.REFUSED)
    assert desk.events(STEP_FAILED)


def test_a_list_that_is_under_way_is_ended_by_the_next_one_and_never_runs_beside_it() -> None:
    desk = Desk(on_takeover=("run up", "run more"), on_return=("run down",))
    desk.end()
    desk.became(ACTIVE)
    number = desk.running[0].number
    assert desk.became(STANDBY) == ["up"] and desk.ended == [number]
    desk.end(None)
    assert desk.commands() == ["down"] and not desk.events(STEP_FAILED)


def test_a_list_that_waits_to_try_again_is_replaced_at_once() -> None:
    desk = Desk(on_takeover=("start orders",), on_return=("run down",))
    desk.end()
    desk.became(ACTIVE)
    desk.end(exits.NOT_FOUND)
    assert desk.became(STANDBY) == ["down"] and desk.ended == []


def test_of_lists_that_follow_at_once_the_last_one_runs() -> None:
    desk = Desk(on_takeover=("run up",), on_return=("run down",))
    desk.end()
    for state in (ACTIVE, STANDBY, ACTIVE):
        desk.became(state)
    desk.end(None)
    assert desk.commands() == ["up"]
    desk.end()
    assert desk.commands() == []


def test_a_command_whose_runner_is_lost_is_not_run_again() -> None:
    desk = Desk({"idle": replace(OPS, events=(LIVE,))}, on_takeover=("run up", "run more"))
    for taken in (True, False):  # or was about to be handed to the runner
        desk.core.became(ACTIVE, "now active", desk.now)
        if taken:
            desk.take()
            desk.running.clear()
        desk.core.lost(desk.now)
        assert desk.commands() == [] and "the process that ran it ended" in desk.events(STEP_FAILED)[-1]
        desk.became(STANDBY)
    assert len(desk.events(STEP_FAILED)) == 2


def test_a_master_that_stops_while_active_does_what_it_does_on_return_and_is_waited_for() -> None:
    desk = Desk({"ops": OPS}, on_return=("run down", "start reports"))
    desk.end()
    desk.became(ACTIVE)
    desk.end()  # the notification
    desk.after(LEAVE_S)
    assert desk.became(CLOSED) == ["down"] and desk.core.busy(desk.now) and desk.kinds() == []
    desk.end()
    assert "reports off" in desk.commands()[0]
    desk.end()
    assert not desk.core.busy(desk.now)


def test_a_master_that_stops_is_not_waited_for_without_end() -> None:
    desk = Desk(on_return=("run down",))
    desk.end()
    desk.became(ACTIVE)
    desk.became(CLOSED)
    desk.after(LEAVE_S)
    assert not desk.core.busy(desk.now)


def test_a_lone_master_that_stops_leaves_services_as_they_are_and_a_standby_does_nothing() -> None:
    desk = Desk(on_return=("start reports", "run down"))
    desk.end()
    assert desk.became(CLOSED) == [] and not desk.core.busy(desk.now)
    lone = Desk(on_takeover=("stop reports",), on_return=("start reports", "run down"))
    lone.end()
    lone.core.peer = ""
    assert len(lone.became(ACTIVE)) == 1
    lone.end()
    assert lone.became(CLOSED) == ["down"]


# ---- notifications -------------------------------------------------------------------------------------------------


def test_each_event_is_told_once_to_each_receiver_in_order_and_numbered() -> None:
    desk = Desk({"ops": OPS, "chat": CHAT})
    desk.core.happened(DEAD, "a", "a is silent", desk.now)
    desk.became(ACTIVE)
    seen: list[tuple[bool, int, str, str]] = []
    for _ in range(4):
        note = desk.notes()[0]
        seen.append((note["receiver"]["mail"], note["note"]["number"], note["note"]["kind"], note["note"]["id"]))
        desk.end()
    assert sorted(seen, reverse=True) == [
        (True, 2, TAKEOVER, "boot-ops-2"),
        (True, 1, DEAD, "boot-ops-1"),
        (False, 2, TAKEOVER, "boot-chat-2"),
        (False, 1, DEAD, "boot-chat-1"),
    ]
    assert desk.notes() == [] and len(desk.events("notify")) == 4


def test_a_list_does_not_go_on_for_the_end_of_a_notification() -> None:
    desk = Desk({"ops": OPS}, on_takeover=("run up", "run more"))
    assert desk.became(ACTIVE) == ["up"]
    assert desk.running[1].argv == ("send",) and desk.running[1].timeout_s == OPS.timeout + SEND_MORE_S
    desk.end(0, "250 queued\n", at=1)
    assert desk.commands() == ["up"]
    assert desk.events("notify") == ["takeover (number 1) delivered; 250 queued"]


def test_only_who_has_an_address_is_a_receiver_and_only_who_has_errands_runs_them() -> None:
    assert not Desk({"ops": NotifySettings()}).core.configured
    assert Desk({"ops": OPS}).core.configured
    assert Desk(on_takeover=("run up",)).core.configured and Desk(on_return=("run down",)).core.configured


def test_a_start_is_no_takeover_and_other_events_are_nobodys() -> None:
    desk = Desk({"ops": OPS})
    desk.core.happened("rejoin", "n1", "n1 is back", desk.now)
    assert desk.notes() == []
    desk.became(ACTIVE)
    desk.end()
    desk.became(STANDBY)
    assert desk.kinds() == [RETURN]


def test_a_receiver_is_told_only_what_it_wants_and_its_numbers_have_no_gap() -> None:
    desk = Desk({"ops": replace(OPS, events=(LIVE,))})
    for kind in KINDS:
        desk.core.happened(kind, "a", "text", desk.now)
    assert [(each["note"]["kind"], each["note"]["number"]) for each in desk.notes()] == [(LIVE, 1)]
    desk.end()
    assert desk.notes() == []


def test_what_fails_is_tried_again_with_the_same_id_and_holds_back_what_follows() -> None:
    desk = Desk({"ops": OPS, "chat": CHAT})
    desk.core.happened(DEAD, "a", "text", desk.now)
    desk.core.happened(LIVE, "a", "text", desk.now)
    waits = []
    for _ in range(8):
        assert [each["note"]["id"] for each in desk.notes() if each["receiver"]["mail"]] == ["boot-ops-1"]
        at = next(at for at, run in enumerate(desk.running) if '"mail": true' in run.text)
        desk.end(1, "connection refused", at)
        waits.append(desk.core.next_deadline() - desk.now)
        desk.after(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert desk.core.alarms() == ["notify ops: 2 not delivered yet: connection refused"]
    assert len(desk.events("notify")) == 1  # not one a try
    assert desk.kinds() == [DEAD, DEAD]
    desk.end(at=0)
    desk.end(at=0)
    assert desk.kinds() == [LIVE, LIVE] and desk.core.alarms() == []


def test_what_cannot_be_delivered_is_given_up_in_the_end_and_the_next_one_has_its_time() -> None:
    desk = Desk({"ops": replace(OPS, retry_for=10.0)})
    desk.core.happened(DEAD, "a", "text", desk.now)
    for _ in range(4):  # at 0, 1, 3, 7 s; the next would be at 15 s
        desk.end(-9)
        assert desk.core.alarms() or desk.now == 107.0
        desk.after(max(0.0, min(desk.core.next_deadline(), desk.now + 60) - desk.now))
    assert "given up after 4 attempts: signal 9" in desk.events("notify")[-1] and desk.notes() == []
    desk.core.happened(LIVE, "a", "text", desk.now)
    assert [each["note"]["number"] for each in desk.notes()] == [2]
    desk.end(1)
    assert desk.core.next_deadline() == desk.now + 1.0


def test_a_notification_whose_runner_is_lost_is_sent_again_with_the_same_id() -> None:
    desk = Desk({"ops": OPS})
    desk.core.happened(DEAD, "a", "text", desk.now)
    before = desk.notes()
    desk.running.clear()
    desk.core.lost(desk.now)
    assert desk.notes() == []
    desk.after(1.0)
    assert desk.notes() == before


def test_what_waits_for_a_receiver_is_bounded() -> None:
    desk = Desk({"ops": OPS})
    for _ in range(QUEUE_MAX + 5):
        desk.core.happened(DEAD, "a", "text", desk.now)
    assert len([text for text in desk.events("notify") if "not told" in text]) == 5
    desk.end(1, "refused")
    assert desk.core.alarms() == [f"notify ops: {QUEUE_MAX} not delivered yet: refused"]


def test_a_reload_keeps_what_waits_for_those_who_stay_and_drops_the_rest() -> None:
    desk = Desk({"ops": OPS, "chat": CHAT})
    for kind in (DEAD, LIVE):
        desk.core.happened(kind, "a", "text", desk.now)
    assert len(desk.notes()) == 2
    desk.core.reconfigure(desk.settings, {"chat": replace(CHAT, to=("http://new/hook",))})
    desk.end()
    desk.end()
    assert [(each["receiver"]["to"], each["note"]["kind"]) for each in desk.notes()] == [(["http://new/hook"], LIVE)]


def test_a_master_that_stops_waits_for_what_may_go_out_and_not_for_what_fails() -> None:
    desk = Desk({"ops": OPS})
    desk.became(CLOSED)
    desk.core.happened(DEAD, "a", "text", desk.now)
    assert desk.core.busy(desk.now)
    desk.end(1, "refused")
    assert not desk.core.busy(desk.now)
