"""Calls helm on the chart, and looks at what it says."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "trainrun"
RELEASE, NAMESPACE = "trainrun-operator", "trainrun-system"
TIMEOUT_SECONDS = 120

MONITORED: Object = {"metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}}}
EVERYTHING: Object = {
    **MONITORED,
    "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "metrics"}}}]},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/trainrun"}},
    "agentImage": "registry.example/trainrun/trainer:0.1.0",
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "podLabels": {"team": "platform"},
    "podAnnotations": {"note": "yes"},
}
VALUES: dict[str, Object] = {
    "defaults": {},
    "one-namespace": {"watchNamespace": "research"},
    "own-namespace-only": {"watchNamespace": NAMESPACE, "rbac": {"aggregate": False}},
    "one-replica": {"replicas": 1},
    "no-definition": {"crds": {"enabled": False}},
    "roles-from-elsewhere": {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "given"}},
    "by-digest": {"image": {"repository": "registry.example:5000/trainrun/operator", "digest": "sha256:" + "a" * 64}},
    "everything": EVERYTHING,
}


class HelmError(Exception):
    """What helm said."""


@dataclass(frozen=True)
class Chart:
    """The chart, rendered by one helm."""

    helm: Path

    def lint(self, values: Object) -> str:
        """The answer of helm lint --strict. Raises HelmError."""
        return self._run("lint", values, "--strict", str(CHART))

    def render(self, values: Object | None = None, *, release: str = RELEASE) -> list[Object]:
        """All objects, in helm's order. Raises HelmError."""
        text = self._run("template", values or {}, release, str(CHART), "--namespace", NAMESPACE)
        return [obj for obj in yaml.safe_load_all(text) if obj is not None]

    def _run(self, verb: str, values: Object, *arguments: str) -> str:
        # JSON is YAML; from stdin, so that no file is needed
        done = subprocess.run(
            [str(self.helm), verb, *arguments, "--values", "-"],
            input=json.dumps(values), capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Those of a kind."""
    return [obj for obj in objects if obj["kind"] == kind]


def one(objects: list[Object], kind: str) -> Object:
    """The only one of a kind."""
    (found,) = of_kind(objects, kind)
    return found
