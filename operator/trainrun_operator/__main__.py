"""`python -m trainrun_operator`: the operator in a cluster.

It puts the parts together and lets kopf run the watches until SIGTERM. Runs go on without it. Exit codes: 0 asked to
stop, 1 it cannot work (one sentence on stderr), 3 another operator leads now, 4 the watches hang: start it again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import kopf

from trainrun_operator import handlers, logs
from trainrun_operator.clock import Clock, SystemClock
from trainrun_operator.cluster import Key
from trainrun_operator.core.pod import AGENT_IMAGE
from trainrun_operator.errors import OperatorError
from trainrun_operator.health import HealthServer, Pulse
from trainrun_operator.kube.client import KubeClient, connect
from trainrun_operator.kube.kube_cluster import KubeCluster, Place
from trainrun_operator.kube.lease import CALL_TIMEOUT_SECONDS, Election, lease_name
from trainrun_operator.kube.refresher import Refresher
from trainrun_operator.kube.watcher import KINDS, Watcher
from trainrun_operator.metrics import Metrics, StateCollector
from trainrun_operator.operator import Operator
from trainrun_operator.settings import Settings

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
EXIT_LEASE_LOST = 3
EXIT_WATCHES_HUNG = 4


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What can be chosen when it starts."""
    parser = argparse.ArgumentParser(prog="python -m trainrun_operator", description=__doc__)
    parser.add_argument("--namespace", default="", help="serve this namespace only; default: all")
    parser.add_argument(
        "--own-namespace", default=_own_namespace(), help="where its ConfigMap and Lease lie (%(default)s)"
    )
    parser.add_argument("--leader-elect", action="store_true", help="of several operators one works, the others wait")
    parser.add_argument(
        "--agent-image", default=AGENT_IMAGE, help="the trainer's image, for runs of other images (%(default)s)"
    )
    parser.add_argument("--host", default="", help="address of /healthz and /metrics (every one, IPv4 and IPv6)")
    parser.add_argument("--port", type=int, default=8080, help="port of /healthz and /metrics (%(default)s)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> None:
    """Operate until SIGTERM or SIGINT; with --leader-elect, stand by until it is our turn. Raises OperatorError."""
    clock, metrics = SystemClock(), Metrics()
    pulse = Pulse(clock)
    server = HealthServer(options.host, options.port, metrics.registry, pulse.trouble)
    signal.signal(signal.SIGTERM, _leave)  # until kopf has its own; the first process of a container has no default
    server.start()
    try:
        if not options.leader_elect:
            _lead(options, clock, metrics, pulse)
            return
        election = _election(options, clock, metrics)
        try:
            election.acquire()
            election.start(_on_lost)
            _lead(options, clock, metrics, pulse)
        finally:
            election.release()
    finally:
        server.stop()


def _lead(options: argparse.Namespace, clock: Clock, metrics: Metrics, pulse: Pulse) -> None:
    """All that costs something: the lists, the watches and the passes."""
    settings = Settings(agent_image=options.agent_image)
    place = Place(options.own_namespace, options.namespace, socket.gethostname())
    cluster = KubeCluster(KubeClient(connect(), metrics.observe_call), clock, place)
    refresher = Refresher(cluster, settings.relist_seconds)
    eyes: list[Refresher | Watcher] = [refresher, *(Watcher(cluster, kind) for kind in KINDS)]

    def journal(line: logs.Line) -> None:
        metrics.observe_line(line)
        logs.journal(line)

    operator = Operator(
        cluster, clock, settings, journal, observe_pass=metrics.observe_pass, observe_action=metrics.observe_action
    )
    metrics.observe_lead()
    for eye in eyes:
        eye.prime()
    cluster.events.start()
    operator.start()
    pulse.follow(operator.trouble)
    # only now: while the lists cannot be had, the dead-man gauge is absent, and somebody is told
    metrics.watch_state(
        StateCollector(cluster.list_runs, operator.queue.depth, cluster.cache.ages_seconds, pulse.alive_at)
    )
    for eye in eyes:
        eye.start()
    try:
        asyncio.run(_watch(cluster, refresher, options.namespace))
    finally:
        for eye in eyes:
            eye.stop()
        operator.stop()
        cluster.events.stop()


def _election(options: argparse.Namespace, clock: Clock, metrics: Metrics) -> Election:
    """With connections of its own: a renewal waits for no pass."""
    client = KubeClient(connect(), metrics.observe_call, timeout_seconds=CALL_TIMEOUT_SECONDS)
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"  # also a process that was restarted in its pod is another one
    return Election(client, clock, Key(options.own_namespace, lease_name(options.namespace)), identity)


def _on_lost() -> None:
    """End at once, without finishing anything: status is the memory, and the kubelet starts us again as a standby."""
    os._exit(EXIT_LEASE_LOST)


def _leave(signum: int, frame: object) -> None:
    raise SystemExit(0)


async def _watch(cluster: KubeCluster, refresher: Refresher, namespace: str) -> None:
    # a name of our own: kopf would ask for the user's, and an image's numeric user has none
    identity: Any = socket.gethostname()

    def run_kopf() -> Coroutine[Any, Any, None]:
        signal.signal(signal.SIGTERM, _leave)  # kopf replaces it, and takes its own away when it ends
        return kopf.operator(
            identity=identity,
            registry=handlers.registry(cluster.cache, refresher.soon),
            settings=handlers.settings(is_namespaced=bool(namespace)),
            standalone=True,
            clusterwide=not namespace,
            namespaces=[namespace] if namespace else [],
        )

    try:
        await handlers.watch(run_kopf, refresher.soon)
    except handlers.WatchesHung as hung:  # the loop would wait for kopf's tasks for ever
        print(f"trainrun-operator: {hung}", file=sys.stderr, flush=True)
        os._exit(EXIT_WATCHES_HUNG)


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
