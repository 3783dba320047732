"""Prometheus metrics. Every label has a bounded set of values; no run is named."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainrun_operator.cluster import Object

PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Seconds: a pass is some API calls of milliseconds; 15 s is the longest wait for an answer."""


prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for


class Metrics:
    """What the operator counts while it works."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self._passes = prometheus.Histogram(
            "trainrun_reconcile_seconds",
            "Time of a pass over one run, by outcome",
            ["outcome"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        )
        self._decisions = prometheus.Counter(
            "trainrun_decisions_total", "Changes of a run's reason", ["rule", "reason"], registry=self.registry
        )
        self._actions = prometheus.Counter(
            "trainrun_actions_total",
            "Actions tried, by outcome: done, unchanged (it was so already), refused by the cluster, failed",
            ["action", "outcome"],
            registry=self.registry,
        )
        self._errors = prometheus.Counter(
            "trainrun_errors_total", "Passes that the cluster refused", registry=self.registry
        )
        self._leader = prometheus.Gauge(
            "trainrun_leader", "1 while this process operates, 0 while it stands by", registry=self.registry
        )
        self._calls = prometheus.Counter(
            "trainrun_api_calls_total", "Calls to the API server", ["verb", "resource", "code"], registry=self.registry
        )

    def observe_call(self, verb: str, resource: str, code: str) -> None:
        """A call to the API server; "none" is the code of no answer."""
        self._calls.labels(verb, resource, code).inc()

    def observe_pass(self, outcome: str, seconds: float) -> None:
        """A pass over a run."""
        self._passes.labels(outcome).observe(seconds)

    def observe_action(self, action: str, outcome: str) -> None:
        """An action of a decision, and what came of it."""
        self._actions.labels(action, outcome).inc()

    def observe_line(self, line: Mapping[str, Any]) -> None:
        """A line of the journal."""
        if line["type"] == "decision":
            self._decisions.labels(line["rule"], line["reason"]).inc()
        elif line["type"] == "error":
            self._errors.inc()

    def observe_lead(self) -> None:
        """This process operates from now on, until it ends."""
        self._leader.set(1)

    def watch_state(self, state: Collector) -> None:
        """Have a collector asked at each scrape."""
        self.registry.register(state)


class StateCollector(Collector):
    """What the cache and the queue say at the moment of the scrape; nothing is counted twice after a restart."""

    def __init__(
        self,
        runs: Callable[[], list[Object]],
        queue_depth: Callable[[], int],
        watch_ages: Callable[[], Mapping[str, float]],
        alive_at: Callable[[], float],
    ) -> None:
        self._runs = runs
        self._queue_depth = queue_depth
        self._watch_ages = watch_ages
        self._alive_at = alive_at

    def collect(self) -> Iterable[Metric]:
        """All gauges."""
        statuses = [run.get("status") or {} for run in self._runs()]
        attempts = [a for status in statuses for a in status.get("attempts") or ()]
        yield _gauge("trainrun_runs", "TrainingRuns", "phase", Tally(s.get("phase") or "New" for s in statuses))
        yield _gauge(
            "trainrun_attempts",
            "Attempts in the histories of existing runs, by cause of their end",
            "cause",
            Tally(a.get("cause") or "open" for a in attempts),
        )
        yield _gauge(
            "trainrun_goodput_seconds", "Wall seconds of existing runs, by class", "class", _seconds_by_class(statuses)
        )
        yield GaugeMetricFamily("trainrun_queue_depth", "Runs waiting for a pass now", value=self._queue_depth())
        yield _gauge("trainrun_watch_age_seconds", "Since the last news of a kind", "kind", self._watch_ages())
        yield GaugeMetricFamily(
            "trainrun_alive_timestamp_seconds",
            "When the operator was last seen working; alert if it stands still",
            value=self._alive_at(),
        )


def _seconds_by_class(statuses: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    total: Tally[str] = Tally()
    for status in statuses:
        for name, seconds in ((status.get("goodput") or {}).get("secondsByClass") or {}).items():
            total[name] += seconds
    return dict(total)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in sorted(values.items()):
        family.add_metric([value], number)
    return family
