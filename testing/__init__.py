"""For the tests of users: a real master and real processes, for as long as a `with` block lasts."""

from .cluster import LocalCluster as LocalCluster

__all__ = ["LocalCluster"]
