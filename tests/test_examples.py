"""The deploy script reports and stops when a step fails; the demo's report finds each fault that is planted."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from waiting import until

EXAMPLES = Path(__file__).parent.parent / "examples"
DEPLOY = EXAMPLES / "deploy.sh"
NODES = ("a", "b", "c")

# Notes its arguments and the version that the node runs then; a file `fail-VERB-NODE` holds the exit code to fail with.
FAKE_ROTA = """\
#!/usr/bin/env bash
echo "$1 $2 $(basename "$(readlink "$RUN/$2/live")")" >>"$RUN/calls"
if [[ -f $RUN/hang-$1-$2 ]]; then exec sleep 600; fi
if [[ -f $RUN/fail-$1-$2 ]]; then echo "refused: $2 is needed" >&2; exit "$(<"$RUN/fail-$1-$2")"; fi
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
    for node in NODES:
        (tmp_path / node).mkdir()
        (tmp_path / node / "live").symlink_to(tmp_path / "old")
    fake = tmp_path / "rota"
    fake.write_text(FAKE_ROTA)
    fake.chmod(0o755)
    return tmp_path


def deploy(run: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "ROTA": str(run / "rota"), "RUN": str(run)}
    command = ["bash", str(DEPLOY), *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def outcome(run: Path, *arguments: object) -> tuple[int, str, str]:
    process = deploy(run, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def calls(run: Path) -> list[str]:
    return (run / "calls").read_text().splitlines() if (run / "calls").exists() else []


def versions(run: Path) -> list[str]:
    return [(run / node / "live").resolve().name for node in NODES]


def test_each_node_is_drained_with_the_old_version_and_rejoins_with_the_new_one(run: Path) -> None:
    exit_code, out, err = outcome(run, run, run / "new", *NODES)
    assert (exit_code, err) == (0, "")
    assert calls(run) == [line for x in NODES for line in (f"drain {x} old", f"rejoin {x} new")]
    assert versions(run) == ["new", "new", "new"]
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [["a", "drain"], ["a", "swap"], ["a", "rejoin"]]


def test_a_deploy_may_be_run_again(run: Path) -> None:
    assert [outcome(run, run, run / "new", *NODES)[0] for _ in range(2)] == [0, 0]
    assert versions(run) == ["new", "new", "new"]
    assert not list(run.glob("*/live.new"))


@pytest.mark.parametrize("verb, b", [("drain", "old"), ("rejoin", "new")])
def test_a_failed_step_ends_the_deploy_with_its_exit_code_and_says_where_it_stands(
    run: Path, verb: str, b: str
) -> None:
    (run / f"fail-{verb}-b").write_text("5")
    exit_code, out, err = outcome(run, run, run / "new", *NODES)
    assert exit_code == 5
    assert "FAILED (exit 5)" in out
    assert "refused: b is needed" in err  # what rota said
    assert f"b: {verb} failed; stopped. Updated: a. Not begun: c." in err
    assert versions(run) == ["new", b, "old"]
    assert not any(" c " in line for line in calls(run))


def test_a_failure_at_the_last_node_leaves_none_that_was_not_begun(run: Path) -> None:
    (run / "fail-drain-c").write_text("75")
    exit_code, _, err = outcome(run, run, run / "new", *NODES)
    assert exit_code == 75
    assert "Updated: a b. Not begun: none." in err


@pytest.mark.parametrize("number, exit_code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_deploy_at_once_and_says_where_it_stands(run: Path, number: int, exit_code: int) -> None:
    (run / "hang-drain-b").touch()
    process = deploy(run, run, run / "new", *NODES)
    until(lambda: "drain b old" in calls(run))
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == exit_code
    assert "Updated: a. Not begun: c." in err


@pytest.mark.parametrize("arguments", [(), ("run",), ("run", "new"), ("run", "nowhere", "a"), ("run", "new", "nobody")])
def test_a_wrong_command_line_changes_nothing_and_shows_the_usage(run: Path, arguments: tuple[str, ...]) -> None:
    given = [run if x == "run" else run / x if x in ("new", "nowhere") else x for x in arguments]
    exit_code, _, err = outcome(run, *given)
    assert exit_code == 2
    assert "usage: deploy.sh RUN_DIR NEW_VERSION NODE..." in err
    assert calls(run) == []


def test_help_is_the_usage(run: Path) -> None:
    exit_code, out, err = outcome(run, "--help")
    assert (exit_code, err) == (0, "")
    assert out.startswith("usage: deploy.sh")


# ---- the web application of the demo ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_loan_application_is_proper_wsgi_and_answers_with_its_version(version: str) -> None:
    application = loaded(f"loans_v{version}", EXAMPLES / "loan_web" / f"v{version}" / "app.py").application
    assert (EXAMPLES / "loan_web" / f"v{version}" / "VERSION").read_text().strip() == version
    status, body = asked(validator(application), "amount=1000&months=36")
    found = json.loads(body)
    assert status == "200 OK" and (str(found["version"]), found["amount"]) == (version, "1000")
    assert asked(validator(application), "amount=1000&months=0")[0] == "400 Bad Request"


def test_the_load_of_the_web_demo_counts_what_is_not_answered_with_200(tmp_path: Path) -> None:
    class Closed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url, report = f"http://127.0.0.1:{server.server_port}", tmp_path / "requests.csv"
        command = [sys.executable, str(EXAMPLES / "load_web.py"), "--url", url, "--rate", "20", "--seconds", "0.5"]
        run = subprocess.run([*command, "--report", str(report)], capture_output=True, text=True, timeout=60)
        server.shutdown()
    outcomes = [line.split(",")[2] for line in report.read_text().splitlines()[1:]]
    assert run.returncode == 1 and len(outcomes) == 10 and set(outcomes) == {"status 503"}, run.stderr


def asked(application: Any, query: str) -> tuple[str, bytes]:
    environ: dict[str, Any] = {"QUERY_STRING": query}
    setup_testing_defaults(environ)
    statuses = []
    found = application(environ, lambda status, headers: statuses.append(status))
    body = b"".join(found)
    found.close()
    return statuses[0], body


# ---- the report of the demo -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return loaded("demo_report", EXAMPLES / "demo" / "report.py")


def loaded(name: str, place: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def good(report: ModuleType) -> list[Any]:
    """Ten seconds, one request in each tenth of one: the deploy goes from 3 to 8, version 2 begins at 5."""
    return [report.Request(x / 10, 0.01, "ok", "1" if x < 50 else "2") for x in range(100)]


def deployed(report: ModuleType, **changes: object) -> Any:
    return report.Deploy(begun=3.0, ended=8.0, exit=0, killed="one")._replace(**changes)


def test_a_rolling_update_without_a_loss_has_no_fault(report: ModuleType) -> None:
    found = report.report(good(report), [3, 2, 3], deployed(report))
    assert report.faults(found) == []
    assert (found.sent, found.by_version["1"], found.by_version["2"], found.active) == (100, 50, 50, 2)
    assert found.before == pytest.approx((0.01, 0.01))


def test_each_planted_fault_is_found(report: ModuleType) -> None:
    requests = good(report)
    only_new = [x._replace(version="2") for x in requests]
    cases = {
        "1 requests were lost": ([*requests, report.Request(5.5, 0, "lost", "")], [2], {}),
        "requests failed: 1 × MaybeExecuted": ([*requests, report.Request(5.5, 0, "MaybeExecuted", "")], [2], {}),
        "version 1 gave 1 answers after": ([*requests, report.Request(9.5, 0.01, "ok", "1")], [2], {}),
        "version 1 answered nothing": (only_new, [2], {}),
        "only 1 of 3 nodes were active": (requests, [3, 1, 3], {}),
        "number of active nodes is not known": (requests, [], {}),
        "deploy script exited with 5": (requests, [2], {"exit": 5}),
        "the deploy did not end": (requests, [2], {"exit": None}),
        "no process was killed": (requests, [2], {"killed": ""}),
    }
    for sentence, (asked, active, changes) in cases.items():
        faults = report.faults(report.report(asked, active, deployed(report, **changes)))
        assert any(sentence in fault for fault in faults), sentence


def test_the_longest_stall_is_the_longest_time_without_an_answer(report: ModuleType) -> None:
    requests = [x for x in good(report) if not 4.05 < x.due < 5.05]
    assert report.report(requests, [2], deployed(report)).stall == pytest.approx(1.1)


def test_a_load_without_any_answer_is_reported_too(report: ModuleType) -> None:
    found = report.report([report.Request(1.0, 0.0, "lost", "")], [3], deployed(report))
    assert "lost                   1" in report.table(found)


# ---- the report of the demo of two masters ---------------------------------------------------------------------------


@pytest.fixture
def failover_report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES / "demo"))
    return loaded("failover_report", EXAMPLES / "demo" / "failover_report.py")


def changed(report: ModuleType) -> list[Any]:
    kill = report.Change("SIGKILL", 3.0, "a", 1, "b", 2, "active")
    return [kill, report.Change("switchover", 8.0, "b", 2, "a", 3, "active")]


def seen(report: ModuleType) -> tuple[list[Any], Counter[str]]:
    """A request in each tenth of a second; what was due in the second after the kill is answered at its end."""
    requests = [report.Request(x / 10, 0.01, "ok", "") for x in range(110)]
    requests[31:41] = [x._replace(latency=4.1 - x.due) for x in requests[31:41]]
    return requests, Counter(f"customer-{number}" for number in range(1, 110, 2))


def test_a_takeover_without_a_loss_has_no_fault(failover_report: ModuleType) -> None:
    requests, granted = seen(failover_report)
    found = failover_report.report(requests, changed(failover_report), granted)
    assert failover_report.faults(found) == []
    assert [(phase.sent, phase.answered) for phase in found.phases] == [(55, 55), (55, 55)]
    assert found.phases[0].stall == pytest.approx(1.09) and found.phases[1].stall == pytest.approx(0.1)
    assert "b, epoch 2" in failover_report.table(found) and "SIGKILL" in failover_report.picture(found)


def test_each_fault_of_a_takeover_is_found(failover_report: ModuleType) -> None:
    requests, granted = seen(failover_report)
    kill, back = changed(failover_report)
    again = granted + Counter(["customer-1"])
    late = [x._replace(latency=6.3 - x.due) if 3.0 < x.due < 5.5 else x for x in requests]
    cases: list[tuple[str, list[Any], Counter[str], list[Any]]] = [
        ("1 loans were granted twice: customer-1", requests, again, [kill, back]),
        ("1 customers have a number", requests, granted - Counter(["customer-1"]), [kill, back]),
        ("SIGKILL: 1 requests were lost", [*requests, requests[40]._replace(outcome="lost")], granted, [kill, back]),
        ("failed: 1 × Timeout", [*requests, requests[40]._replace(outcome="Timeout")], granted, [kill, back]),
        ("nothing was answered for 3", late, granted, [kill, back]),
        ("SIGKILL: b is candidate", requests, granted, [kill._replace(state="candidate"), back]),
        ("switchover: no later epoch", requests, granted, [kill, back._replace(epoch=2)]),
        ("not changed twice", requests, granted, [kill]),
        (
            "whose outcome nobody knows",
            [*requests, requests[90]._replace(outcome="MaybeExecuted")],
            granted,
            [kill, back],
        ),
    ]
    for sentence, asked, book, changes in cases:
        faults = failover_report.faults(failover_report.report(asked, changes, book))
        assert any(sentence in fault for fault in faults), (sentence, faults)
