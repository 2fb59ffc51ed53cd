"""One random history of a pair of masters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from rota.common.settings import ANY, MAJORITY, MasterSettings

from .. import leftovers
from ..faults import Fault
from ..network import BEGINNING
from ..played import Pace, Played, told, under_load
from .cluster import BACKUP, PRIMARY, PairCluster
from .faults import FAULTS

PACE = Pace([0.02, 0.05, 0.1], [0.1, 0.3, 0.8], [2.0, 5.0, 8.0], [0.8, 2.5, 6.0])
ANY_EVERY = 20  # of so many histories one has quorum "any"


def history(seed: int, kinds: Sequence[Fault] = ()) -> Played:
    """Plays one, with some of all kinds of faults or with these."""
    choice = Random(seed)
    is_looked_at = seed % leftovers.EVERY == 0
    cluster = PairCluster(
        seed,
        nodes=choice.choice([1, 2, 2, 3, 3]),
        clients=choice.randint(1, 2),
        concurrency=choice.choice([1, 1, 4]),
        credit=choice.choice([None, 1, 8]),
        quorum=ANY if seed % ANY_EVERY == 0 else MAJORITY,
        handover=choice.random() < 0.8,
        second_s=choice.choice([0.0, 0.0, 0.3, 2.0]),
        first=choice.choice([PRIMARY, PRIMARY, BACKUP]),
        forget_s=leftovers.FORGET_S if is_looked_at else MasterSettings().session_idle,
    )
    with told(cluster, seed, "--pairs "):
        faults = _play(cluster, choice, kinds or choice.sample(list(FAULTS), choice.randint(3, len(FAULTS))))
        if is_looked_at:
            leftovers.check(cluster)
    counts = cluster.counts + Counter(
        {
            "MaybeExecuted": sum(cluster.checks.maybe.values()),
            "MaybeExecuted that never ran": cluster.checks.maybe["never ran"],
        }
    )
    return Played(cluster.checks.answers, faults, cluster.clock.now - BEGINNING, counts, cluster.answered_after)


def _play(cluster: PairCluster, choice: Random, kinds: Sequence[Fault]) -> int:
    """Load, then peace. How many faults there were."""
    if choice.random() < 0.8:
        cluster.clock.run(cluster.clock.now + 10, cluster_is_ready(cluster))
    faults = under_load(cluster, choice, FAULTS, kinds, PACE)
    cluster.settle()
    return faults


def cluster_is_ready(cluster: PairCluster) -> object:
    def ready() -> bool:
        active = cluster.active
        return active is not None and cluster.ready() and not active.core.pair.unready()

    return ready
