"""Doubles for tests and the simulator: a clock, a cluster with faults, a world of nodes and trainers.

They stand on the same object store and job controller as local mode; the product never imports them.
"""

from trainrun_operator.testing.clock import FakeClock
from trainrun_operator.testing.cluster import FakeCluster

__all__ = ["FakeClock", "FakeCluster"]
