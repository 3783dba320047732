"""`make dev-cluster`: a control plane, fake nodes and the operator, for trying things by hand.

The API server, its controllers, the scheduler, training-operator with its webhook and the operator are real; nodes are
kwok's, and trainers are played: they step, save and reach their target, so that a run can be watched, disturbed and
mended within a minute. Nothing outside of this machine is touched; Ctrl-C ends and removes everything.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from trainrun_operator.kube import rbac

from tests.controlplane.api import ApiError
from tests.controlplane.binaries import BuildError, ensure
from tests.controlplane.cluster import PROGRAMS, Cluster, cluster
from tests.controlplane.control_plane import ControlPlane, install_definitions
from tests.controlplane.operator_process import OperatorProcess
from tests.controlplane.rights import OPERATOR_USER, grant
from tests.controlplane.training_operator import tidy

TICK_SECONDS = 0.5
VERSION = "1.9.4"
HEALTH = "sagemaker.amazonaws.com/node-health-status"


def main(argv: list[str] | None = None) -> int:
    """Run until Ctrl-C; 1 with one sentence if the cluster cannot be had."""
    parser = argparse.ArgumentParser(prog="make dev-cluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=3, help="fake nodes (%(default)s)")
    options = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        for program in (*PROGRAMS, f"training-operator-{VERSION}"):
            ensure(program)
    except BuildError as problem:
        print(f"dev-cluster: {problem}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="trainrun-dev-") as folder:
        try:
            _serve(Path(folder), options.nodes, stop)
        finally:
            tidy()
    print("dev-cluster: everything is stopped and removed.")
    return 0


def _serve(folder: Path, nodes: int, stop: threading.Event) -> None:
    print("dev-cluster: starting etcd, the API server, its controllers, training-operator and kwok ...", flush=True)
    with ControlPlane(folder) as plane:
        install_definitions(plane.api())
        with cluster(plane, VERSION) as whole:
            grant(plane.api(), "ClusterRole", "", "trainrun", rbac.rules(rbac.PER_NAMESPACE, rbac.SCANNING))
            for number in range(nodes):
                whole.nodes.add(f"node-{number}", {HEALTH: "Schedulable"})
            operator = OperatorProcess(folder, plane.kubeconfig(OPERATOR_USER), None, "operator")
            with operator.process:
                operator.wait_ready()
                print(_greeting(plane, operator, folder), flush=True)
                _play(whole, operator, stop)


def _play(whole: Cluster, operator: OperatorProcess, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS):
        if operator.process.has_ended():
            print(f"dev-cluster: the operator has ended; its log ends with:\n{operator.process.tail()}")
            operator.process.start()
        try:
            whole.trainers.finish_due()
        except ApiError as error:
            print(f"dev-cluster: {error}")


def _greeting(plane: ControlPlane, operator: OperatorProcess, folder: Path) -> str:
    return f"""
The cluster is up. In another terminal:

  export KUBECONFIG={plane.kubeconfig()}
  kubectl apply -f examples/01-local/run.yaml
  kubectl get trun -w
  kubectl describe trun kjv-small

Break something, and watch it go on:

  kubectl delete node node-0
  kubectl label node node-1 --overwrite {HEALTH}=UnschedulablePendingReplacement
  kubectl patch trun kjv-small --type merge -p '{{"spec":{{"restartToken":"1"}}}}'

The operator's log:      {operator.process.log}
Its metrics:             http://127.0.0.1:{operator.port}/metrics
Everything else's logs:  {folder}

Ctrl-C ends and removes all of it.
"""


if __name__ == "__main__":
    sys.exit(main())
