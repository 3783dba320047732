"""`python -m trainrun_operator`: the operator in a cluster.

It puts the parts together and lets kopf run the watches until SIGTERM. Runs go on without it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path

import kopf

from trainrun_operator import handlers, logs
from trainrun_operator.clock import SystemClock
from trainrun_operator.errors import OperatorError
from trainrun_operator.health import HealthServer
from trainrun_operator.kube.client import KubeClient, connect
from trainrun_operator.kube.kube_cluster import KubeCluster, Place
from trainrun_operator.kube.refresher import Refresher
from trainrun_operator.metrics import Metrics, StateCollector
from trainrun_operator.operator import Operator
from trainrun_operator.settings import Settings

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
STUCK_SECONDS = 300.0
"""A pass that has been due for so long without being run: the process is to be restarted."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What can be chosen when it starts."""
    parser = argparse.ArgumentParser(prog="python -m trainrun_operator", description=__doc__)
    parser.add_argument("--namespace", default="", help="serve this namespace only; default: all")
    parser.add_argument("--own-namespace", default=_own_namespace(), help="where its ConfigMap lies (%(default)s)")
    parser.add_argument("--host", default="0.0.0.0", help="address of /healthz and /metrics (%(default)s)")  # noqa: S104
    parser.add_argument("--port", type=int, default=8080, help="port of /healthz and /metrics (%(default)s)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> None:
    """Operate until SIGTERM or SIGINT. Raises OperatorError."""
    clock, metrics, settings = SystemClock(), Metrics(), Settings()
    place = Place(options.own_namespace, options.namespace, socket.gethostname())
    cluster = KubeCluster(KubeClient(connect(), metrics.observe_call), clock, place)
    refresher = Refresher(cluster, settings.resync_seconds)

    def journal(line: logs.Line) -> None:
        metrics.observe_line(line)
        logs.journal(line)

    operator = Operator(
        cluster, clock, settings, journal, observe_pass=metrics.observe_pass, observe_action=metrics.observe_action
    )
    alive_at = 0.0

    def trouble() -> str | None:
        nonlocal alive_at
        reason = operator.trouble(STUCK_SECONDS)
        if reason is None:
            alive_at = clock.now().timestamp()
        return reason

    def seen_alive_at() -> float:
        trouble()
        return alive_at

    metrics.watch_state(
        StateCollector(cluster.list_runs, operator.queue.depth, cluster.cache.ages_seconds, seen_alive_at)
    )
    server = HealthServer(options.host, options.port, metrics.registry, trouble)
    refresher.prime()
    operator.start()
    refresher.start()
    server.start()
    try:
        asyncio.run(_watch(cluster, refresher, options.namespace))
    finally:
        server.stop()
        refresher.stop()
        operator.stop()


async def _watch(cluster: KubeCluster, refresher: Refresher, namespace: str) -> None:
    await kopf.operator(
        registry=handlers.registry(cluster.cache, refresher.soon),
        settings=handlers.settings(is_namespaced=bool(namespace)),
        standalone=True,
        clusterwide=not namespace,
        namespaces=[namespace] if namespace else [],
    )


def _own_namespace() -> str:
    """The pod's namespace; outside of a cluster $POD_NAMESPACE or default."""
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    return os.environ.get("POD_NAMESPACE", "default")


def main(argv: list[str] | None = None) -> int:
    """Run; 1 with one sentence on stderr if it cannot."""
    options = arguments(argv)
    logs.set_up(options.log_level)
    try:
        run(options)
    except OperatorError as error:
        print(f"trainrun-operator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
