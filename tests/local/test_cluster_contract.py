"""LocalCluster keeps the contract that every Cluster keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from trainrun_operator.clock import SystemClock
from trainrun_operator.cluster import Key, Object
from trainrun_operator.local.disk import write_json
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.local_cluster import LocalCluster

from tests.local.story import MANIFEST, eventually
from tests.operator.contract_cluster import ClusterContract, Subject


class TestLocalCluster(ClusterContract):
    """The contract."""

    @pytest.fixture
    def subject(self, workdir: Path) -> Iterator[Subject]:
        """One slot, and it is cordoned: no pod becomes a process."""
        run_dir = RunDir(workdir / "a")
        run_dir.make()
        metadata = {"name": "slot-0", "uid": "n", "resourceVersion": "1", "generation": 1}
        node: Object = {"metadata": {**metadata, "labels": {"trainrun.dev/slot": "0"}}}
        node |= {"kind": "Node", "spec": {"unschedulable": True}, "status": {}}
        write_json(run_dir.objects / "Node..slot-0.json", node)
        cluster = LocalCluster(run_dir, SystemClock().now, journal=lambda record: None)
        cluster.start()

        def add_run(name: str) -> Key:
            manifest = {**MANIFEST, "metadata": {"name": name}}
            write_json(run_dir.desired, {"manifest": manifest, "folder": str(workdir), "nodes": 1})
            eventually(cluster.list_runs)
            return Key("default", name)

        def settle() -> None:
            key = Key("default", "a")
            eventually(lambda: len(cluster.list_pods(key)) >= len(cluster.list_jobs(key)))

        yield Subject(cluster, add_run, settle)
        cluster.stop()
