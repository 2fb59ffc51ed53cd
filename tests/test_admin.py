"""The operators' client against a fake master."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fake_frontend import FakeFrontend, Proxy
from waiting import until

import rota
from rota.common.messages import Refusal, Result, Verb


@pytest.fixture
def admin(fake: FakeFrontend) -> Iterator[rota.Admin]:
    with rota.Admin(fake.address, user="ann") as made:
        yield made


def asked(fake: FakeFrontend, data: dict[str, Any] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Everything succeeds; the list fills with what was asked."""
    verbs: list[tuple[str, dict[str, Any]]] = []

    def answer(verb: Verb) -> Result:
        verbs.append((verb.verb, verb.args))
        names = verb.args.get("nodes", ["all-of-them"])
        nodes = [{"node": name, "intent": "active", "changed": True} for name in names]
        return Result(verb.id, True, 0, {"schema": 1, "nodes": nodes, **(data or {})})

    fake.verb = answer
    return verbs


def failing(fake: FakeFrontend, number: int, **data: Any) -> None:
    fake.verb = lambda verb: Result(verb.id, False, number, data)


def test_status_is_the_masters_map(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake, {"services": []})
    assert admin.status()["services"] == []
    assert verbs == [("status", {})]


def test_drain_waits_until_the_nodes_are_detached(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake)
    reply = admin.drain("web-1", "web-2", deadline=30, force=True, reason="release")
    assert [node["node"] for node in reply["nodes"]] == ["web-1", "web-2"]
    (drain, wait) = verbs
    assert drain == ("drain", {"nodes": ["web-1", "web-2"], "deadline_s": 30, "force": True, "reason": "release"})
    assert wait[1] | {"timeout_s": 0} == {"condition": "detached", "names": ["web-1", "web-2"], "timeout_s": 0}
    assert 290 < wait[1]["timeout_s"] <= 300


def test_drain_of_all_waits_for_the_nodes_that_the_master_names(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake)
    admin.drain(all=True)
    assert verbs[0] == ("drain", {"all": True})
    assert verbs[1][1]["names"] == ["all-of-them"]


def test_neither_a_dry_run_nor_no_wait_waits(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake)
    admin.drain("a", deadline=0, dry_run=True)
    admin.rejoin(tags={"rack": "1"}, wait=False)
    assert verbs == [("drain", {"nodes": ["a"], "deadline_s": 0, "dry_run": True}), ("rejoin", {"tags": {"rack": "1"}})]


@pytest.mark.parametrize(
    ("verb", "args", "condition"),
    [
        ("drain", {"wait": False}, ""),
        ("rejoin", {"dry_run": True}, ""),
        ("reload", {}, "reloaded"),
        ("reload", {"wait": False}, ""),
        ("pause", {}, "paused"),
        ("pause", {"wait": False}, ""),
        ("maintenance", {"on": True}, "maintenance"),
        ("maintenance", {"on": True, "wait": False}, ""),
        ("maintenance", {"on": False}, ""),
    ],
)
def test_a_verb_waits_for_what_it_is_to_bring_about_unless_told_not_to(
    fake: FakeFrontend, admin: rota.Admin, verb: str, args: dict[str, Any], condition: str
) -> None:
    verbs = asked(fake)
    getattr(admin, verb)("orders", **args)
    waits = [(asked["condition"], asked["names"]) for name, asked in verbs if name == "wait"]
    assert waits == ([(condition, ["orders"])] if condition else [])


def test_a_user_without_a_name_has_none(fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is but a number."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    asked(fake)
    monkeypatch.setattr("getpass.getuser", nobody)
    with rota.Admin(fake.address) as admin:
        admin.status()
    until(lambda: fake.counts["bye"] == 1)


def test_nobody_waits_for_all_nodes_of_none(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake, {"nodes": []})
    admin.rejoin(all=True)
    assert verbs == [("rejoin", {"all": True})]


def test_who_said_goodbye_is_waited_for_by_name_only(fake: FakeFrontend, admin: rota.Admin) -> None:
    here = {"node": "a", "intent": "active", "liveness": "live"}
    verbs = asked(fake, {"nodes": [here, {**here, "node": "b", "liveness": "closed"}]})
    admin.rejoin(all=True)
    admin.rejoin(tags={"rack": "1"})
    admin.rejoin("a", "b")
    admin.drain(all=True)
    assert [args["names"] for verb, args in verbs if verb == "wait"] == [["a"], ["a"], ["a", "b"], ["a", "b"]]


def test_rejoin_announces_a_version_and_waits_until_active(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake)
    admin.rejoin("a", version="4.2")
    assert verbs[0] == ("rejoin", {"nodes": ["a"], "version": "4.2"})
    assert verbs[1][1]["condition"] == "active"


def test_whether_something_is_so_now_is_asked_with_no_time_to_wait(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake)
    admin.wait("ready", "orders", timeout=0)
    assert verbs == [("wait", {"condition": "ready", "names": ["orders"], "timeout_s": 0.0})]


def test_the_other_verbs_say_what_they_were_told(fake: FakeFrontend, admin: rota.Admin) -> None:
    verbs = asked(fake)
    admin.recheck("a")
    admin.forget("a", reason="sold")
    admin.scale("orders", 0, reason="night")
    admin.reload("orders", wait=False)
    assert verbs == [
        ("recheck", {"nodes": ["a"]}),
        ("forget", {"nodes": ["a"], "reason": "sold"}),
        ("scale", {"service": "orders", "processes": 0, "reason": "night"}),
        ("reload", {"service": "orders"}),
    ]


def test_which_nodes_must_be_said_in_exactly_one_way(admin: rota.Admin) -> None:
    for wrong in ({}, {"all": True, "tags": {"a": "b"}}):
        with pytest.raises(TypeError, match="one of the three"):
            admin.drain(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one of the three"):
        admin.drain("a", all=True)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(2, rota.BindError), (4, rota.NotFound), (5, rota.Refused), (75, rota.Timeout), (77, rota.Denied)],
)
def test_a_failed_verb_raises_the_error_of_its_exit_code(
    fake: FakeFrontend, admin: rota.Admin, number: int, kind: type[rota.Error]
) -> None:
    failing(fake, number, error="no node 'web1'", nearest=["web-1"])
    with pytest.raises(kind, match="no node 'web1'") as caught:
        admin.drain("web1")
    assert type(caught.value) is kind
    assert caught.value.exit_code == number  # type: ignore[attr-defined]
    assert caught.value.details["nearest"] == ["web-1"]


def test_without_a_master_the_error_names_who_was_tried() -> None:
    with FakeFrontend() as gone:
        pass
    with rota.Admin([gone.address, "tcp://127.0.0.1:1"]) as admin, pytest.raises(rota.Unavailable) as caught:
        admin.status(timeout=0.5)
    assert caught.value.exit_code == 69  # type: ignore[attr-defined]
    assert gone.address in str(caught.value) and "tcp://127.0.0.1:1" in str(caught.value)


def test_the_first_master_that_answers_is_used(fake: FakeFrontend) -> None:
    asked(fake)
    with rota.Admin(f"tcp://127.0.0.1:1,{fake.address}") as admin:
        admin.status()


def test_a_master_that_is_silent_is_given_up_at_the_time_out(fake: FakeFrontend, admin: rota.Admin) -> None:
    fake.verb = lambda verb: Result(verb.id + 1000, True, 0, {})  # of another question
    with pytest.raises(rota.Timeout, match="did not answer 'status'"):
        admin.status(timeout=0.2)


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_question(
    fake: FakeFrontend, admin: rota.Admin
) -> None:
    asked: list[int] = []

    def answer(verb: Verb) -> Result:
        asked.append(verb.id)
        return Result(asked[0] if asked[1:] else verb.id + 1000, True, 0, {"late": True})

    fake.verb = answer
    for _ in range(2):
        with pytest.raises(rota.Timeout, match="did not answer"):
            admin.scale("orders", 3, timeout=0.2)


def test_a_verb_is_sent_again_after_the_connection_was_lost(fake: FakeFrontend) -> None:
    proxy = Proxy(fake.ports[0])
    verbs: list[str] = []

    def answer(verb: Verb) -> Result:
        verbs.append(verb.verb)
        if len(verbs) == 1:
            proxy.cut()
        return Result(verb.id, True, 0, {"once": len(verbs)})

    fake.verb = answer
    with rota.Admin(proxy.address) as admin:
        assert admin.status() == {"once": 2}
    proxy.close()


def test_a_verb_outlasts_a_restart_of_the_master() -> None:
    with FakeFrontend() as first:
        asked(first)
        admin = rota.Admin(first.address)
        admin.status()
    second = FakeFrontend(ports=(first.ports[0], first.ports[1]))
    asked(second, {"again": True})
    threading.Timer(0.3, second.__enter__).start()
    assert admin.status()["again"]
    second.__exit__()
    admin.close()


def test_a_master_of_another_version_is_an_error_that_names_both(fake: FakeFrontend, admin: rota.Admin) -> None:
    fake.refusal = Refusal("incompatible", "this master speaks versions 7 to 9", 60_000, [7, 9])
    with pytest.raises(rota.Incompatible, match="7 to 9.* 1 to 1"):
        admin.status()


def test_one_refusal_for_good_is_doubted_as_a_damaged_hello_looks_like_another_versions(
    fake: FakeFrontend, admin: rota.Admin
) -> None:
    asked(fake, {"again": True})
    fake.refusal, fake.refusals = Refusal("incompatible", "this master speaks 7 to 9", 60_000, [7, 9]), 1
    assert admin.status()["again"]


def test_events_are_given_in_order_and_once(fake: FakeFrontend, admin: rota.Admin) -> None:
    asked(fake, {"events": [{"number": 3}, {"number": 4}]})
    assert [event["number"] for event in admin.events(since=2)] == [3, 4]


def test_followed_events_go_on_where_they_were_after_the_connection_was_lost(fake: FakeFrontend) -> None:
    proxy = Proxy(fake.ports[0])
    fake.events = [{"number": number} for number in (1, 2, 3)]
    with rota.Admin(proxy.address) as admin:
        events = admin.events(since=1, follow=True)
        assert [next(events)["number"] for _ in range(2)] == [2, 3]
        fake.events.append({"number": 4})
        proxy.cut()
        assert next(events)["number"] == 4
        events.close()  # type: ignore[attr-defined]
    proxy.close()


def test_followed_events_go_on_where_they_were_after_their_admin_was_closed(
    fake: FakeFrontend, admin: rota.Admin
) -> None:
    """As verbs do; it was an error of a socket that is none."""
    fake.events = [{"number": 1}]
    events = admin.events(follow=True)
    assert next(events)["number"] == 1
    admin.close()
    fake.events.append({"number": 2})
    assert next(events)["number"] == 2


def test_a_forked_child_gets_a_connection_of_its_own(fake: FakeFrontend) -> None:
    """It used its parent's, without the thread that serves it, and waited for ever."""
    asked(fake)
    fake.events = [{"number": 1}, {"number": 2}]
    program = (
        "import os, signal, sys, rota\n"
        "admin = rota.Admin(sys.argv[1])\n"
        "events = admin.events(follow=True)\n"
        "assert next(events)['number'] == 1\n"
        "pid = os.fork()\n"
        "signal.alarm(20)\n"
        "admin.status()\n"
        "assert next(events)['number'] == 2\n"
        "admin.close()\n"
        "if pid: assert os.waitpid(pid, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", program, fake.address], check=True, timeout=30)
    assert fake.counts["OperatorHello"] == 2 and fake.counts["bye"] == 2


def test_a_closed_admin_connects_again(fake: FakeFrontend, admin: rota.Admin) -> None:
    asked(fake)
    admin.status()
    admin.close()
    until(lambda: fake.counts["bye"] == 1)
    admin.close()
    admin.status()
    assert fake.counts["OperatorHello"] == 2
