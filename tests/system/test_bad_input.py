"""Whatever people and applications get wrong is told to whoever did it, and harms nobody else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from waiting import until

import rota
from rota.cli.main import main
from system.load import Load
from system.pool import Pool

ROTA = [sys.executable, "-m", "rota"]
BROKEN = "import rota\nraise KeyError('no such shop')\n"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool"), nodes=2, links=True) as running:
        yield running


def command(pool: Pool, *words: str) -> Result:
    return CliRunner().invoke(main, words, env={"ROTA_MASTER": pool.address})


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("call prof.book key=x", "proof"),
        ("call proof.bok key=x", "proof.book"),
        ("drain nod-1", "node-1"),
        ("reload prof", "proof"),
        ("wait actve", "active"),
        ("wait active nod-2", "node-2"),
    ],
)
def test_an_unknown_name_exits_4_and_tells_the_nearest(pool: Pool, words: str, nearest: str) -> None:
    ended = command(pool, *words.split())
    assert (ended.exit_code, ended.stdout) == (4, "") and f"did you mean {nearest}" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "key"),
        ({"key": "x", "secnds": 1}, "secnds"),
        ({"key": "x", "seconds": "long"}, "seconds"),
        ({"key": object()}, "key"),
    ],
)
def test_a_bad_argument_is_a_type_error_that_names_it(pool: Pool, arguments: dict[str, object], named: str) -> None:
    before = pool.processes()
    with pytest.raises(TypeError, match=named):
        pool.client().call("proof.book", **arguments)
    assert pool.processes() == before and not pool.running()


def test_what_is_too_large_is_told_to_who_sends_it(pool: Pool) -> None:
    before, client = pool.processes(), pool.client(timeout=10)
    with pytest.raises(rota.PayloadTooLarge) as asked:
        client.call("proof.measure", bytes(1 << 21))
    with pytest.raises(rota.PayloadTooLarge) as answered:
        client.call("proof.big", 1 << 21)
    for caught in (asked, answered):
        size, limit = caught.value.details["size"], caught.value.details["limit"]
        assert isinstance(size, int) and isinstance(limit, int) and size > limit
    assert client.call("proof.measure", bytes(1_000_000)) == len(client.call("proof.big", 1_000_000)) == 1_000_000
    assert pool.processes() == before


@pytest.mark.parametrize("mend", [("recheck",), ("drain", "rejoin")], ids=" ".join)
def test_a_version_that_does_not_load_is_told_with_its_traceback_and_the_others_serve_on(
    pool: Pool, mend: tuple[str, ...]
) -> None:
    others = pool.processes("node-2")
    (pool.release("broken") / "app.py").write_text(BROKEN)
    with Load(pool.ledger, pool.client(), "proof.book", lanes=2) as load:
        assert command(pool, "drain", "node-1").exit_code == 0
        pool.swap("node-1", "broken")
        ended = command(pool, "rejoin", "node-1")
        assert ended.exit_code == 1 and "no such shop" in ended.stderr and "app.py" in ended.stderr
        shown = command(pool, "status")
        assert "failed" in shown.stdout and "no such shop" in shown.stdout
        failing = pool.node("node-1")["failing"][0]
        assert failing["failures"] >= 3 and failing["retry_in_ms"] > 0 and "Traceback" in failing["text"]
        assert pool.processes("node-2") == others
        pool.swap("node-1", "1")
        for verb in mend:
            ended = command(pool, verb, "node-1", "--timeout", "20")
            assert ended.exit_code == 0, ended.stderr
        load.more(20)
    assert not load.faults and not pool.node("node-1")["failing"] and pool.processes("node-1")


def test_a_busy_port_is_told_with_who_holds_it(pool: Pool) -> None:
    ended = subprocess.run([*ROTA, "master", "--bind", pool.address], capture_output=True, text=True, timeout=30)
    pid = pool.status()["master"]["pid"]
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert pool.address in ended.stderr and f"pid {pid}" in ended.stderr


def test_all_mistakes_of_a_file_are_told_at_once(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text('[master]\nbnd = 1\nsuspect_after = "5s"\n[service.proof]\nqueue_limit = -1\n')
    ended = command(pool, "master", "-c", str(file))
    assert ended.exit_code == 78
    for expected in (f"{file}:2", f"{file}:3", f"{file}:5", "did you mean bind"):
        assert expected in ended.stderr


def test_a_handler_over_its_limit_is_ended_with_its_process_and_another_one_comes_up(pool: Pool) -> None:
    before = set(pool.processes())
    pool.ledger.submitted("hung")
    with pytest.raises(rota.MaybeExecuted) as lost:
        pool.client(timeout=10).call("proof.hang", "hung")
    pool.ledger.failed("hung", lost.value)
    pid = next(each.pid for each in pool.ledger.executions() if each.key == "hung")
    until(lambda: len(set(pool.processes()) - {pid}) == len(before))
    assert len(before - set(pool.processes())) == 1
    findings = pool.ledger.check()
    assert not findings.twice and not findings.lost and not findings.wrong


def test_what_waits_in_the_queue_too_long_is_refused_and_not_run(tmp_path: Path) -> None:
    with Pool(tmp_path, settings={"service.proof.queue_timeout": 0.2}) as short:
        client = short.client(timeout=10)
        first = client.submit("proof.book", "first", 0.6)
        until(lambda: "first" in short.running())
        with pytest.raises(rota.Overloaded):
            client.call("proof.book", "second")
        assert first.result()[0] == "first"
        assert "second" not in {each.key for each in short.ledger.executions()}
