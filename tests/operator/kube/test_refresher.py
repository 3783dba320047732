"""The refresher keeps asking, at first soon, while the cluster cannot be listed."""

from __future__ import annotations

from typing import cast

import pytest
from trainrun_operator.errors import Unavailable
from trainrun_operator.kube import backoff
from trainrun_operator.kube.kube_cluster import KubeCluster
from trainrun_operator.kube.refresher import Refresher


class Away:
    """A cluster that cannot be listed so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    def relist(self, kind: str) -> str:
        """List them."""
        self.asked += 1
        if self.asked <= self.failures:
            raise Unavailable("list trainingruns: no answer")
        return "1"


def test_priming_goes_on_until_the_cluster_is_listed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The waits double up to a bound, and each is said."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.003)
    cluster = Away(failures=4)
    Refresher(cast(KubeCluster, cluster), 3600.0).prime()
    assert cluster.asked == 5
    assert caplog.text.count("could not be listed") == 4
