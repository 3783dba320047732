"""Prometheus text of one pod, written by hand: the agent may not depend on a client library.

Labels are bounded: the run's identity and the local rank, never a step, a loss or a path.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Tuple

_GAUGES: Tuple[Tuple[str, str, str], ...] = (
    ("trainrun_step", "step", "Completed optimizer steps."),
    ("trainrun_total_steps", "total_steps", "Optimizer steps of the whole run."),
    ("trainrun_loss", "loss", "Loss of the last step."),
    ("trainrun_tokens", "tokens", "Tokens trained since step 0."),
    ("trainrun_tokens_per_second", "tokens_per_second", "Training speed."),
    ("trainrun_step_age_seconds", "step_age_seconds", "Age of the last step."),
    ("trainrun_inplace_restarts", "inplace_restarts", "Restarts of the worker group inside this attempt."),
)
_WORKER_GAUGES: Tuple[Tuple[str, str, str], ...] = (
    ("trainrun_worker_device_activity", "device_activity", "Share of time that the device (or CPU) was busy."),
    ("trainrun_worker_power_watts", "power_watts", "Power draw of the device."),
    ("trainrun_worker_memory_bytes", "memory_bytes", "Memory in use."),
    ("trainrun_pod_network_bytes", "network_bytes", "Bytes sent and received by the pod, at its first worker."),
)


def render(progress: Mapping[str, Any], pod_index: int) -> str:
    """Exposition text of one pod's progress record; what is unknown is absent."""
    labels = 'run="%s",attempt="%s",pod_index="%d"' % (_escape(progress["run"]), progress["attempt"], pod_index)
    lines: List[str] = []
    for metric, name, text in _GAUGES:
        if progress.get(name) is not None:
            _head(lines, metric, text)
            lines.append("%s{%s} %s" % (metric, labels, progress[name]))
    durable = progress.get("durable_checkpoint") or {}
    if durable.get("age_seconds") is not None:
        _head(lines, "trainrun_checkpoint_age_seconds", "Age of the newest durable checkpoint.")
        lines.append("trainrun_checkpoint_age_seconds{%s} %s" % (labels, durable["age_seconds"]))
    for metric, name, text in _WORKER_GAUGES:
        told = [w for w in progress["workers"] if w.get(name) is not None]
        if told:
            _head(lines, metric, text)
            lines += ['%s{%s,local_rank="%d"} %s' % (metric, labels, w["local_rank"], w[name]) for w in told]
    return "\n".join(lines) + "\n"


def _head(lines: List[str], metric: str, text: str) -> None:
    lines += ["# HELP %s %s" % (metric, text), "# TYPE %s gauge" % metric]


def _escape(value: str) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
