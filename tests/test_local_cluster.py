"""rota.testing.LocalCluster: what users' own tests rely on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from lines import next_line
from waiting import is_gone, until

import rota
from rota.testing import LocalCluster
from rota.testing.where_from import source_of

APP = """
import os
import rota

orders = rota.Worker("orders")

@orders.handler(idempotent=True)  # what goes to a process that was killed a moment ago runs again elsewhere
def quote(symbol: str) -> dict:
    return {"symbol": symbol, "pid": os.getpid(), "mood": os.environ.get("MOOD", "")}
"""

SCRIPT = """
import json, sys
from rota.testing import LocalCluster

with LocalCluster(sys.argv[1]) as cluster:
    pids = [cluster.status()["master"]["pid"], *(each.pid for each in cluster._nodes.values()), *cluster.processes()]
    print(json.dumps(pids), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("app") / "shop.py"
    path.write_text(APP)
    return f"{path}:orders"


@pytest.fixture(scope="module")
def shared(app: str) -> Iterator[LocalCluster]:
    with LocalCluster(app, nodes=2, processes=2, state=True, env={"MOOD": "fine"}) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: LocalCluster) -> LocalCluster:
    """All of it ready, whatever the test before did."""
    for name in ("node-1", "node-2"):
        if name not in shared.nodes:
            shared.start_node(name)
    shared.wait_ready()
    return shared


def all_pids(cluster: LocalCluster) -> list[int]:
    agents = [child.pid for child in cluster._nodes.values()]
    return [cluster.status()["master"]["pid"], *agents, *cluster.processes()]


def test_when_the_block_is_entered_every_process_is_ready(cluster: LocalCluster) -> None:
    assert cluster.nodes == ["node-1", "node-2"]
    assert len(cluster.processes()) == 4 and len(cluster.processes("node-1")) == 2
    answer = cluster.client(timeout=5).call("orders.quote", symbol="X")
    assert answer["symbol"] == "X" and answer["pid"] in cluster.processes() and answer["mood"] == "fine"


def test_a_killed_process_is_replaced(cluster: LocalCluster) -> None:
    before = set(cluster.processes())
    killed = cluster.kill_process()
    until(lambda: is_gone(killed))
    cluster.wait_ready()
    until(lambda: len(processes := cluster.processes()) == 4 and killed not in processes)
    assert killed in before


def test_a_pid_that_is_no_process_of_the_cluster_is_never_killed(cluster: LocalCluster) -> None:
    with pytest.raises(rota.NotFound, match="no ready process has the pid"):
        cluster.kill_process(os.getpid())


@pytest.mark.parametrize("kill", [False, True])
def test_a_restarted_master_is_at_the_same_address_and_processes_live_on(cluster: LocalCluster, kill: bool) -> None:
    address, processes, epoch = cluster.address, set(cluster.processes()), cluster.status()["master"]["epoch"]
    client = cluster.client(timeout=10)
    cluster.restart_master(kill=kill)
    assert cluster.address == address and set(cluster.processes()) == processes
    assert cluster.status()["master"]["epoch"] > epoch
    assert client.call("orders.quote", symbol="X")["symbol"] == "X"


def test_a_stopped_node_leaves_and_comes_back(cluster: LocalCluster) -> None:
    gone = cluster.processes("node-1")
    cluster.stop_node("node-1")
    assert cluster.nodes == ["node-2"] and all(map(is_gone, gone))
    assert cluster.client().call("orders.quote", symbol="X")["pid"] in cluster.processes("node-2")
    cluster.start_node("node-1", version="2")
    assert sorted(cluster.nodes) == ["node-1", "node-2"]
    assert {node["name"]: node["versions"] for node in cluster.status()["nodes"]}["node-1"] == ["2"]


def test_a_killed_node_takes_its_processes_with_it(cluster: LocalCluster) -> None:
    gone = cluster.processes("node-2")
    cluster.stop_node("node-2", kill=True)
    until(lambda: all(map(is_gone, gone)))
    assert cluster.client().call("orders.quote", symbol="X")["pid"] in cluster.processes("node-1")


def test_unknown_nodes_are_told_with_the_nearest_names(cluster: LocalCluster) -> None:
    with pytest.raises(rota.NotFound, match="did you mean node-1"):
        cluster.stop_node("nod-1")
    with pytest.raises(ValueError, match="node-1 runs already"):
        cluster.start_node("node-1")


def test_a_drained_node_stays_drained_when_the_master_restarts(cluster: LocalCluster) -> None:
    admin = cluster.admin()
    admin.wait("active", timeout=20)
    admin.drain("node-1")
    cluster.restart_master()
    intents = {node["name"]: node["intent"] for node in cluster.status()["nodes"]}
    admin.rejoin("node-1", wait=False)
    assert intents == {"node-1": "detached", "node-2": "active"}


def test_logs_have_what_master_and_nodes_wrote(cluster: LocalCluster) -> None:
    assert cluster.address in cluster.log()
    assert "node-2" in cluster.log("node-2") and cluster.log("nobody") == ""


# ---- starts that fail, and ends -------------------------------------------------------------------------------------


def test_an_application_that_does_not_import_is_told_with_its_own_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import rota\nraise KeyError('no such shop')\n")
    with pytest.raises(rota.LoadError, match="no such shop") as caught, LocalCluster(str(tmp_path / "broken.py")):
        pass
    assert "broken.py" in caught.value.traceback_text


def test_a_start_hook_that_raises_is_told_with_its_own_traceback(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(f"{APP}\n@orders.on_start\ndef connect(): raise OSError('no database')\n")
    with pytest.raises(rota.LoadError, match="no database"), LocalCluster(str(tmp_path / "hook.py")):
        pass


def test_a_wrong_setting_is_told_by_its_name(app: str) -> None:
    with (
        pytest.raises(rota.Unavailable, match="did you mean dead_after"),
        LocalCluster(app, settings={"master.dead_aftr": "2s"}),
    ):
        pass


def test_settings_reach_master_and_services_and_a_node_without_work_is_not_waited_for(app: str) -> None:
    settings = {"service.orders.max_processes": 1, "service.orders.weights": {"node-1": 2}}
    with LocalCluster(app, nodes=2, processes=2, settings=settings, timeout=10) as cluster:
        assert len(cluster.nodes) == 2 and len(cluster.processes()) == 1
        assert cluster.status()["services"][0]["max"] == 1


def test_nodes_have_the_names_that_they_are_given_each_its_own(app: str) -> None:
    """Of two with one name the first was never ended; one name by itself was taken for one of each letter."""
    with LocalCluster(app, nodes="web") as cluster:
        assert cluster.nodes == ["web"]
    with pytest.raises(ValueError, match="a name of its own, not"):
        LocalCluster(app, nodes=["web", "web"])


def test_nothing_is_left_when_the_block_raises(app: str) -> None:
    pids: list[int] = []
    with pytest.raises(ZeroDivisionError), LocalCluster(app, nodes=["one"]) as cluster:
        pids += all_pids(cluster)
        raise ZeroDivisionError
    assert len(pids) == 3
    until(lambda: all(map(is_gone, pids)))
    assert cluster.nodes == []
    with pytest.raises(RuntimeError, match="does not run"):
        cluster.client()


def test_nothing_is_left_when_the_tests_themselves_are_killed(app: str) -> None:
    import json

    tests = subprocess.Popen([sys.executable, "-c", SCRIPT, app], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert tests.stdin is not None and tests.stdout is not None
    with tests.stdin, tests.stdout:
        pids = json.loads(next_line(tests))
        tests.send_signal(signal.SIGKILL)
        tests.wait(10)
    assert len(pids) == 3
    until(lambda: all(map(is_gone, pids)))


# ---- Worker objects -------------------------------------------------------------------------------------------------


def test_a_worker_object_is_found_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own_shop.py"
    path.write_text(APP)
    spec = spec_from_file_location("own_shop", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_shop", module)
    spec.loader.exec_module(module)
    assert source_of(module.orders) == (f"{path}:orders", None)
    with LocalCluster(module.orders) as cluster:
        assert cluster.client().call("orders.quote", symbol="Y")["symbol"] == "Y"


def test_a_worker_of_a_package_is_named_by_module_for_its_relative_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_package" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "own_package" / "__init__.py").touch()
    (package / "__init__.py").write_text("import rota\nstock = rota.Worker('stock')\n")
    monkeypatch.syspath_prepend(tmp_path)
    from own_package.inner import stock  # type: ignore[import-not-found]

    assert source_of(stock) == ("own_package.inner:stock", str(tmp_path))


def test_a_worker_that_no_file_has_is_refused() -> None:
    with pytest.raises(ValueError, match="top level of a file"):
        source_of(rota.Worker("nowhere"))


def test_a_process_serves_as_many_requests_at_once_as_its_concurrency_says(tmp_path: Path) -> None:
    """More than the 64 rows that a page usually has; the last one cannot begin before one of the others is over."""
    app = tmp_path / "meet.py"
    app.write_text(
        "import asyncio, rota\n"
        "app = rota.Worker('meet')\n"
        "here, all_here = [], asyncio.Event()\n"
        "@app.handler\n"
        "async def come(guests: int) -> int:\n"
        "    here.append(1)\n"
        "    if len(here) == guests:\n"
        "        all_here.set()\n"
        "    await all_here.wait()\n"
        "    return len(here)\n"
    )
    with LocalCluster("meet:app", app_dir=tmp_path, env={"ROTA_SLAVE_CONCURRENCY": "150"}) as cluster:
        calls = [cluster.client().submit("meet.come", 150) for _ in range(150)]
        assert {call.result(20) for call in calls} == {150}
