"""A handler inside an application, drained and taken back under load."""

import itertools
from pathlib import Path

from waiting import until

import rota
from system.load import Load
from system.pool import Pool

embedded = rota.Worker("embedded")
calls = itertools.count()


@embedded.handler
def where() -> str:
    next(calls)
    return "here"


def test_a_background_slot_comes_back_after_each_drain(tmp_path: Path) -> None:
    with Pool(tmp_path) as pool, embedded.background(master=pool.address, name="inside") as node:
        node.wait_ready()
        client = pool.client(timeout=10)
        for _ in range(3):
            assert client.call("embedded.where") == "here"
            node.drain(force=True, timeout=10)
            assert pool.node("inside")["intent"] == "detached" and pool.node("inside")["processes"] == []
            node.rejoin(timeout=10)
            assert client.call("embedded.where") == "here"


def test_a_background_slot_and_a_node_share_the_work_while_either_is_drained(tmp_path: Path) -> None:
    """Both offer the same service; a drain of one under load fails nothing."""
    from system.app import proof

    with Pool(tmp_path) as pool:
        import os

        os.environ["PROOF_FILE"] = str(pool.ledger.file)
        try:
            with proof.background(master=pool.address, name="inside") as node:
                node.wait_ready()
                until(lambda: pool.status()["services"][0]["active_nodes"] == 2)
                with Load(pool.ledger, pool.client(), "proof.book", lanes=4) as load, pool.admin() as admin:
                    for _ in range(2):
                        load.more(20)
                        node.drain(timeout=10)
                        load.more(20)
                        node.rejoin(timeout=10)
                    load.more(20)
                    admin.drain("node-1")
                    load.more(20)
                    admin.rejoin("node-1", timeout=10)
        finally:
            del os.environ["PROOF_FILE"]
        findings = pool.ledger.check()
        assert not findings.failed and not findings.twice and not findings.lost and not findings.wrong
        here = [each for each in pool.ledger.executions() if each.pid == os.getpid()]
        assert here
