"""The worker pod's template: what the agent is told, what the container may use, and our defaults.

Everything here can be overridden by `spec.workers.template`, except what its rules refuse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainrun_api.contract import AGENT_PORT, Env
from trainrun_api.stages import TRAIN_CONFIGURED, is_chain, own_config
from trainrun_api.v1alpha1 import StageSpec, TrainingRunSpec

from trainrun_operator.core.instances import device_resources
from trainrun_operator.core.placement import HEALTH_TOLERATION

CONTAINER = "pytorch"
"""The name that training-operator looks for."""

AGENT_INIT_CONTAINER = "trainrun-agent"
AGENT_IMAGE = "trainrun/trainer:0.1.0"
"""Brings the agent into a user's own image."""
AGENT_ZIPAPP = "/opt/trainrun/agent.pyz"
"""Where the trainer image keeps the agent as one file."""

SCRATCH = "/trainrun"
"""Memory-backed folder of the pod: progress files, and the agent when it comes from outside."""
SCRATCH_LIMIT = "64Mi"

UNPRIVILEGED_ID = 1000

PEERS_LIMIT_BYTES = 100_000
"""Linux takes no variable above 128 KiB; of a larger gang the leading peers are told."""

REPLICA_INDEX_FIELD = "metadata.labels['training.kubeflow.org/replica-index']"

INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"

_NO_ISTIO = {"sidecar.istio.io/inject": "false"}
_NO_LINKERD = {"linkerd.io/inject": "disabled"}
"""A mesh proxy would keep a finished pod alive and stand in the way of collectives."""

_EVERYWHERE = {
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # without it a restarted group reads the dead group's addresses
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for devices must not initialise CUDA in a parent process
}
_BY_ACCELERATOR = {
    "cuda": {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "NCCL_SOCKET_IFNAME": "^docker,lo,veth"},
    "neuron": {"NEURON_RT_ASYNC_EXEC_MAX_INFLIGHT_REQUESTS": "3", "MALLOC_ARENA_MAX": "64"},
    "cpu": {},
}
_WITH_EFA = {"FI_PROVIDER": "efa", "FI_EFA_USE_HUGE_PAGE": "0"}

_DEVICE_TAINTS = {"cuda": "nvidia.com/gpu", "neuron": "aws.amazon.com/neuron"}


def template(
    spec: TrainingRunSpec, job: str, contract_env: Sequence[dict[str, Any]], agent_image: str
) -> dict[str, Any]:
    """Our pod template of one attempt, before the user's is laid over it."""
    is_own_program = bool(spec.command)
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
        "enableServiceLinks": False,  # a namespace with many services would fill the environment
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UNPRIVILEGED_ID,
            "runAsGroup": UNPRIVILEGED_ID,
            "fsGroup": UNPRIVILEGED_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [dict(HEALTH_TOLERATION), *_device_tolerations(spec.workers.accelerator)],
        "affinity": {"podAntiAffinity": _one_worker_per_node(job)},
        "containers": [_container(spec, contract_env)],
        "volumes": [
            {"name": "dshm", "emptyDir": {"medium": "Memory"}},
            {"name": "trainrun", "emptyDir": {"medium": "Memory", "sizeLimit": SCRATCH_LIMIT}},
        ],
    }
    if spec.workers.instance_type:
        pod["nodeSelector"] = {INSTANCE_TYPE_LABEL: spec.workers.instance_type}
    if is_own_program:
        pod["initContainers"] = [_agent_init_container(agent_image)]
    return {"metadata": {"labels": dict(_NO_ISTIO), "annotations": dict(_NO_LINKERD)}, "spec": pod}


def contract_environment(
    *,
    run: str,
    uid: str,
    attempt: int,
    job: str,
    replicas: int,
    spares: int,
    stage: StageSpec,
    spec: TrainingRunSpec,
    parent: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """What agent and trainer are told (design section 5), plus torchrun's processes per node.

    training-operator 1.7 does not turn `spec.nprocPerNode` of an elastic job into a variable, so it is set here too.
    """
    workers, resume = spec.workers, spec.resume.model_dump(mode="json", by_alias=True)
    if parent is not None and spec.resume.run is not None:
        resume |= {"path": parent["path"].removeprefix("file://"), "stage": parent.get("stage")}
    values: dict[str, str] = {
        Env.RUN: run,
        Env.RUN_UID: uid,
        Env.ATTEMPT: str(attempt),
        Env.STAGE: stage.name,
        Env.RESUME: _compact(resume),
        Env.CHECKPOINT: _compact(spec.checkpoint.model_dump(mode="json", by_alias=True, exclude={"path"})),
        Env.CHECKPOINT_PATH: spec.checkpoint.path.removeprefix("file://"),
        Env.ACCELERATOR: workers.accelerator,
        Env.REPLICAS: str(replicas),
        Env.PEERS: _peers(job, replicas + spares),
        Env.AGENT_PORT: str(AGENT_PORT),
        Env.PROGRESS_DIR: f"{SCRATCH}/progress",
        Env.GRACE_SECONDS: str(spec.termination_grace_period_seconds),
        "PET_NPROC_PER_NODE": str(workers.devices_per_worker),
    }
    if is_chain(spec):
        values[Env.STAGE_KIND] = stage.kind
    if stage.kind not in TRAIN_CONFIGURED:
        values[Env.CONFIG] = _compact(own_config(spec, stage))
    elif spec.config is not None:
        # as it was written: a field that this version knows and the image does not must not be in it by its default
        values[Env.CONFIG] = _compact(spec.config.model_dump(mode="json", exclude_unset=True))
    if spares:
        values[Env.SPARES] = str(spares)
    if spec.max_attempt_seconds is not None:
        values[Env.DEADLINE] = str(spec.max_attempt_seconds)
    index = {"name": Env.POD_INDEX, "valueFrom": {"fieldRef": {"fieldPath": REPLICA_INDEX_FIELD}}}
    return [*({"name": name, "value": value} for name, value in values.items()), index]


def own_program(command: Sequence[str]) -> list[str]:
    """A user's program under torchrun, which finds its gang in the PET_* variables."""
    first = command[0]
    if first == "torchrun":
        return [*command]
    if first == "-m" or first.endswith(".py"):
        return ["torchrun", *command]
    return ["torchrun", "--no-python", *command]


def _container(spec: TrainingRunSpec, contract_env: Sequence[dict[str, Any]]) -> dict[str, Any]:
    workers = spec.workers
    resources = device_resources(workers.accelerator, workers.devices_per_worker, workers.instance_type)
    env = {**_EVERYWHERE, **_BY_ACCELERATOR[workers.accelerator]}
    if "vpc.amazonaws.com/efa" in resources:
        env |= _WITH_EFA
    command = ["python3", "-m", "trainrun_trainer.agent"]
    if spec.command:
        command = ["python3", f"{SCRATCH}/agent.pyz", "--", *own_program(spec.command)]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "command": command,
        "env": [*contract_env, *({"name": name, "value": value} for name, value in env.items())],
        "ports": [{"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        # our agent always writes a message; a user's program that dies before the agent starts leaves its log's end
        "terminationMessagePolicy": "FallbackToLogsOnError" if spec.command else "File",
        "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}, {"name": "trainrun", "mountPath": SCRATCH}],  # noqa: S108
    }
    if resources:
        counts = {name: str(count) for name, count in resources.items()}
        container["resources"] = {"requests": counts, "limits": dict(counts)}
    return container


def _agent_init_container(image: str) -> dict[str, Any]:
    return {
        "name": AGENT_INIT_CONTAINER,
        "image": image,
        "command": ["cp", AGENT_ZIPAPP, f"{SCRATCH}/agent.pyz"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "trainrun", "mountPath": SCRATCH}],
    }


def _device_tolerations(accelerator: str) -> list[dict[str, str]]:
    key = _DEVICE_TAINTS.get(accelerator)
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"}] if key else []


def _one_worker_per_node(job: str) -> dict[str, Any]:
    """Preferred, not required: whole-node device requests force it, small CPU runs may share a node."""
    selector = {"matchLabels": {"training.kubeflow.org/job-name": job}}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _peers(job: str, pods: int) -> str:
    names = [f"{job}-worker-{index}:{AGENT_PORT}" for index in range(pods)]
    room = PEERS_LIMIT_BYTES // (len(names[-1]) + 1)
    return ",".join(names[:room])


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
