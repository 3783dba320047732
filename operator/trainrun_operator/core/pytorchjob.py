"""One attempt of a run as a PyTorchJob manifest. Pure: run in, manifest out.

Worker-only with an elastic policy (c10d, min = max = replicas), so that each index may host the rendezvous and no
Master pod and no name-lookup init container exist. `restartPolicy: Never` and no `maxRestarts`: whole attempts are
restarted, by us. `runPolicy.suspend` and HyperPod's auto-resume annotation are never written: the first belongs to
Kueue, the second would set a second restarter on our pods. Works with training-operator 1.7 and 1.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainrun_api.contract import GROUP, Label
from trainrun_api.stages import spec_of, stage_of
from trainrun_api.v1alpha1 import TrainingRunSpec

from trainrun_operator.core.merge import overlay
from trainrun_operator.core.placement import with_placement
from trainrun_operator.core.pod import AGENT_IMAGE, contract_environment, template

KUEUE_PREFIX = "kueue.x-k8s.io/"
MANAGED_BY = "app.kubernetes.io/managed-by"

STAY_ON_LOST_NODES = tuple(
    {"key": f"node.kubernetes.io/{condition}", "operator": "Exists", "effect": "NoExecute"}
    for condition in ("not-ready", "unreachable")
)
"""Where spares are, a pod of a lost node must not be evicted: training-operator would count it as failed, and with it
the job that goes on without it. We remove it by force, when a spare has taken its place."""


def job_name(run: str, attempt: int) -> str:
    """PyTorchJob of an attempt; its pods are `<job>-worker-<index>`, services and rendezvous are named by it too."""
    return f"{run}-a{attempt}"


def render(
    run: Mapping[str, Any],
    attempt: int,
    excluded_nodes: Sequence[str],
    replicas: int,
    *,
    spares: int = 0,
    agent_image: str = AGENT_IMAGE,
) -> dict[str, Any]:
    """The PyTorchJob of one attempt; `run` is a validated TrainingRun as the API serves it."""
    metadata = run["metadata"]
    name, uid = metadata["name"], metadata["uid"]
    status, whole = run.get("status") or {}, TrainingRunSpec.model_validate(run["spec"])
    stage = stage_of(whole, status.get("stage") or "")
    spec, job = spec_of(whole, stage.name), job_name(name, attempt)
    labels = {**_kueue_labels(metadata), MANAGED_BY: "trainrun", Label.RUN: name, Label.ATTEMPT: str(attempt)}
    env = contract_environment(
        run=name,
        uid=uid,
        attempt=attempt,
        job=job,
        replicas=replicas,
        spares=spares,
        stage=stage,
        spec=spec,
        parent=status.get("parent"),
    )
    pod = overlay(template(spec, job, env, agent_image), spec.workers.template.as_dict())
    pod["metadata"]["labels"] |= {**labels, Label.RUN_UID: uid, Label.STAGE: stage.name}
    pod["spec"] = with_placement(pod["spec"], excluded_nodes)
    if spares:
        pod["spec"]["tolerations"] = [*(pod["spec"].get("tolerations") or []), *STAY_ON_LOST_NODES]
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": job,
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {Label.GENERATION: str(metadata.get("generation", 1))},
            "ownerReferences": [_owner(name, uid)],
        },
        "spec": {
            # in one place only, or the 1.9 webhook refuses the job
            "nprocPerNode": str(spec.workers.devices_per_worker),
            "elasticPolicy": {
                "rdzvBackend": "c10d",
                "rdzvId": f"{uid}-a{attempt}",
                "minReplicas": replicas,
                "maxReplicas": replicas,
            },
            "runPolicy": {"cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": {
                "Worker": {"replicas": replicas + spares, "restartPolicy": "Never", "template": pod}
            },
        },
    }


def _owner(name: str, uid: str) -> dict[str, Any]:
    """Not blocking: a run's deletion never waits for its job."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "TrainingRun",
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _kueue_labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in (metadata.get("labels") or {}).items() if key.startswith(KUEUE_PREFIX)}
