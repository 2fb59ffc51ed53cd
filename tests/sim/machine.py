"""The same cluster as a state machine of hypothesis: it chooses the faults, and shrinks what it finds to few steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from .cluster import Cluster
from .faults import FAULTS, Fault
from .process_part import HANDLERS


class ClusterMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: the checks hold at every step, and in peace everything ends."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster | None = None
        self.over = False

    @initialize(
        seed=st.integers(0, 99),
        nodes=st.integers(1, 3),
        journal=st.booleans(),
        concurrency=st.sampled_from([1, 4]),
        credit=st.sampled_from([None, 2, 8]),
        ready=st.booleans(),
    )
    def start(self, seed: int, nodes: int, journal: bool, concurrency: int, credit: int | None, ready: bool) -> None:
        self.cluster = cluster = Cluster(seed, nodes, 2, journal, concurrency, credit)
        with self.told(cluster):
            if ready:
                cluster.run_until(cluster.ready, 10)

    @rule(
        handler=st.sampled_from(list(HANDLERS)),
        timeout=st.sampled_from([0.05, 0.8, 2.5]),
        count=st.sampled_from([1, 8]),
    )
    def calls_come(self, handler: str, timeout: float, count: int) -> None:
        assert self.cluster is not None
        with self.told(self.cluster):
            for _ in range(count):
                self.cluster.call(handler, timeout)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0]))
    def time_passes(self, seconds: float) -> None:
        assert self.cluster is not None
        with self.told(self.cluster):
            self.cluster.run(seconds)

    @rule(fault=st.sampled_from(list(FAULTS)))
    def something_breaks(self, fault: Fault) -> None:
        assert self.cluster is not None
        with self.told(self.cluster):
            fault(self.cluster)

    @invariant()
    def nothing_is_out_of_place(self) -> None:
        if self.cluster is not None and self.cluster.master.alive:
            with self.told(self.cluster):
                self.cluster.checks.after_step(self.cluster.master)

    def teardown(self) -> None:
        if self.cluster is None:
            return
        try:
            if not self.over:
                with self.told(self.cluster):
                    self.cluster.settle()
        finally:
            self.cluster.close()

    @contextmanager
    def told(self, cluster: Cluster) -> Iterator[None]:
        """What fails is shown with the whole transcript."""
        try:
            yield
        except Exception:
            self.over = True
            note(cluster.clock.transcript())
            raise
