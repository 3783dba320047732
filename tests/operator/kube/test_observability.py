"""Metrics with bounded labels, logs as JSON, and a health check that tells a stuck operator from a busy one."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest
from trainrun_operator import logs
from trainrun_operator.cluster import Key
from trainrun_operator.errors import AlreadyExists, Refused, Unavailable
from trainrun_operator.health import STUCK_SECONDS, HealthServer, Pulse
from trainrun_operator.metrics import Metrics, StateCollector
from trainrun_operator.operator import Operator
from trainrun_operator.settings import Settings
from trainrun_operator.testing import FakeClock, FakeCluster
from trainrun_operator.testing.world import World

STATUSES = [
    {"phase": "Running", "attempts": [{"cause": "NodeLost"}, {}], "goodput": {"secondsByClass": {"training": 5.0}}},
    {"phase": "Running", "goodput": {"secondsByClass": {"training": 2.5, "starting": 1.0}}},
    {},
]


def scraped(metrics: Metrics) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        sample.name + "".join(f"|{v}" for v in sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def test_metrics_tell_runs_attempts_calls_and_passes() -> None:
    """Sums over runs, none of which is named."""
    metrics = Metrics()
    metrics.watch_state(
        StateCollector(lambda: [{"status": s} for s in STATUSES], lambda: 3, lambda: {"Pod": 1.5}, lambda: 9.0)
    )
    metrics.observe_call("get", "trainingruns", "200")
    metrics.observe_pass("ok", 0.02)
    metrics.observe_line({"type": "decision", "rule": "node_lost", "reason": "Restarting"})
    metrics.observe_action("CreateJob", "done")
    metrics.observe_line({"type": "error", "message": "forbidden"})
    assert scraped(metrics)["trainrun_leader"] == 0
    metrics.observe_lead()
    said = scraped(metrics)
    expected = {
        "trainrun_runs|Running": 2, "trainrun_runs|New": 1,
        "trainrun_attempts|NodeLost": 1, "trainrun_attempts|open": 1,
        "trainrun_goodput_seconds|training": 7.5, "trainrun_queue_depth": 3, "trainrun_watch_age_seconds|Pod": 1.5,
        "trainrun_alive_timestamp_seconds": 9.0, "trainrun_api_calls_total|get|trainingruns|200": 1,
        "trainrun_decisions_total|node_lost|Restarting": 1, "trainrun_actions_total|CreateJob|done": 1,
        "trainrun_errors_total": 1, "trainrun_leader": 1, "trainrun_reconcile_seconds_count|ok": 1,
    }  # fmt: skip
    assert {name: said.get(name) for name in expected} == expected


def test_actions_are_counted_by_what_came_of_them() -> None:
    """Refused, failed, done, and already so; the journal still tells those that had an effect."""
    clock, metrics = FakeClock(), Metrics()
    cluster = FakeCluster(clock)
    world = World(clock, cluster)
    lines: list[Mapping[str, Any]] = []
    operator = Operator(cluster, clock, Settings(), lines.append, observe_action=metrics.observe_action)
    key = world.add_run("a")
    trouble: list[Exception | None] = [Refused("quota"), Unavailable("timeout"), AlreadyExists("a-a0"), None]

    def fail(call: str) -> None:
        if call == "create_job" and (error := trouble.pop(0)) is not None:
            raise error

    cluster.before = fail
    for _ in range(4):  # the first puts the attempt on record and creates its job, the next ones try again
        operator.queue.add(key)
        assert operator.process_due()
        clock.advance(61)
    said = {name: value for name, value in scraped(metrics).items() if name.startswith("trainrun_actions_total")}
    assert said == {
        "trainrun_actions_total|CreateJob|refused": 1,
        "trainrun_actions_total|CreateJob|failed": 1,
        "trainrun_actions_total|CreateJob|unchanged": 1,
        "trainrun_actions_total|CreateJob|done": 1,
        "trainrun_actions_total|RecordEvent|done": 1,
    }
    assert [line["reason"] for line in lines if line["type"] == "action"] == ["CreateJob"]


def test_journal_lines_carry_run_attempt_and_rule() -> None:
    """One JSON object, also for messages with quotes and line ends."""
    record = logging.LogRecord("trainrun", logging.INFO, "", 0, "%s", ('said "no"\nand left',), None)
    record.fields = {"run": "a", "attempt": 2, "rule": "node_lost"}
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["message"], line["run"], line["attempt"], line["rule"]) == ('said "no"\nand left', "a", 2, "node_lost")


@pytest.mark.parametrize(("trouble", "code"), [(None, 200), ("threads have died: worker-0", 503)], ids=["well", "ill"])
def test_health_says_why(trouble: str | None, code: int) -> None:
    """The kubelet restarts on 503."""
    server = HealthServer("127.0.0.1", 0, Metrics().registry, lambda: trouble)
    server.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            assert b"trainrun_reconcile_seconds" in answer.read()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
                said = (answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                said = (error.code, error.read().decode())
        assert said == (code, f"{trouble or 'ok'}\n")
    finally:
        server.stop()


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_every_address_is_answered(address: str) -> None:
    """A cluster may have IPv4, IPv6 or both."""
    server = HealthServer("", 0, Metrics().registry, lambda: None)
    server.start()
    try:
        with urllib.request.urlopen(f"http://{address}:{server.port}/healthz") as answer:
            assert answer.status == 200
    finally:
        server.stop()


def test_a_pass_that_nobody_runs_is_trouble() -> None:
    """A queue that stands still is not a queue that is long."""
    clock = FakeClock()
    operator = Operator(FakeCluster(clock), clock, Settings(), lambda line: None)
    operator.queue.add(Key("ns", "a"))
    assert operator.queue.depth() == 1
    assert operator.trouble(300.0) is None
    clock.advance(301)
    assert operator.trouble(300.0) == "a pass has been due for more than 300 s"


def test_dead_man_gauge_stands_still_when_the_operator_does() -> None:
    """A standby is well; a leader is as well as its operator says."""
    clock = FakeClock()
    pulse = Pulse(clock)
    assert pulse.trouble() is None
    started = pulse.alive_at()
    assert started == clock.now().timestamp()
    pulse.follow(lambda stuck_seconds: f"stuck for {stuck_seconds:.0f} s")
    clock.advance(60)
    assert pulse.trouble() == f"stuck for {STUCK_SECONDS:.0f} s"
    assert pulse.alive_at() == started
