"""Rules on the shape of the worker group and on its pod template."""

from __future__ import annotations

from trainrun_api.pod_template import Container, PodTemplate
from trainrun_api.rules.base import OK, Facts, Rule, Values

MAIN_CONTAINER = "pytorch"
"""The name that training-operator asks for."""
AGENT_CONTAINER = "trainrun-agent"
"""Init container that brings the agent into a user's own image."""

MEMBERS_LEAST = 2
"""Workers of a run that spares can help."""

RESERVED_ENV_PREFIXES = ("TRAINRUN_", "PET_")
RESERVED_ENV = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RESERVED_LABEL_PREFIXES = ("trainrun.dev/", "training.kubeflow.org/")
AUTO_RESUME = ("sagemaker.amazonaws.com/enable-job-auto-resume", "sagemaker.amazonaws.com/enable-job-auto-restart")
"""HyperPod's annotation, and the way one of its samples misspells it."""

_POD = "spec.workers.template.spec"
_METADATA = "spec.workers.template.metadata"


def _containers(template: PodTemplate) -> list[Container]:
    return list(template.spec.containers or []) if template.spec else []


def _replicas(facts: Facts) -> Values | None:
    got = facts.spec.workers.replicas
    return OK if got >= 1 else {"got": got}


def _min_replicas(facts: Facts) -> Values | None:
    workers = facts.spec.workers
    if workers.min_replicas is None or workers.min_replicas <= workers.replicas:
        return OK
    return {"got": workers.min_replicas, "replicas": workers.replicas}


def _spares_of_one(facts: Facts) -> Values | None:
    workers = facts.spec.workers
    return OK if not workers.spares or workers.replicas >= MEMBERS_LEAST else {"got": workers.spares}


def _spares_of_program(facts: Facts) -> Values | None:
    got = facts.spec.workers.spares
    return OK if not got or not facts.spec.command else {"got": got}


def _restart_policy(facts: Facts) -> Values | None:
    spec = facts.spec.workers.template.spec
    return OK if spec is None or spec.restart_policy is None else {"got": spec.restart_policy}


def _reserved_env(facts: Facts) -> Values | None:
    names = [
        var.name
        for container in _containers(facts.spec.workers.template)
        if container.name == MAIN_CONTAINER
        for var in container.env or []
    ]
    return {} if any(name in RESERVED_ENV or name.startswith(RESERVED_ENV_PREFIXES) for name in names) else OK


def _reserved_label(facts: Facts) -> Values | None:
    metadata = facts.spec.workers.template.metadata
    labels = (metadata.labels or {}) if metadata else {}
    return {} if any(name.startswith(RESERVED_LABEL_PREFIXES) for name in labels) else OK


def _auto_resume(facts: Facts) -> Values | None:
    metadata = facts.spec.workers.template.metadata
    annotations = (metadata.annotations or {}) if metadata else {}
    return {} if any(name in annotations for name in AUTO_RESUME) else OK


def _owned_fields(facts: Facts) -> Values | None:
    for container in _containers(facts.spec.workers.template):
        if container.name == MAIN_CONTAINER and (
            container.image is not None or container.command is not None or container.args is not None
        ):
            return {}
    return OK


def _reserved_container(facts: Facts) -> Values | None:
    spec = facts.spec.workers.template.spec
    names = [c.name for c in (spec.init_containers or [])] if spec else []
    return {} if AGENT_CONTAINER in names or MAIN_CONTAINER in names else OK


def _container_twice(facts: Facts) -> Values | None:
    names = [container.name for container in _containers(facts.spec.workers.template)]
    twice = next((name for name in names if names.count(name) > 1), None)
    return OK if twice is None else {"got": twice}


_BAD_ENV = (
    "e.name.startsWith('TRAINRUN_') || e.name.startsWith('PET_') || "
    "e.name in ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT']"
)
_BAD_MAIN = f"c.name == 'pytorch' && has(c.env) && c.env.exists(e, {_BAD_ENV})"

RULES = (
    Rule(
        id="replicas-positive",
        at="spec.workers",
        child="replicas",
        cel="!has(self.replicas) || self.replicas >= 1",
        message="spec.workers.replicas={got} starts no worker; use 1 or more, or spec.suspend: true to pause the run",
        values={"got": "self.replicas"},
        check=_replicas,
    ),
    Rule(
        id="min-replicas-within-replicas",
        at="spec.workers",
        child="minReplicas",
        cel="!has(self.minReplicas) || self.minReplicas <= (has(self.replicas) ? self.replicas : 1)",
        message="spec.workers.minReplicas={got} is more than spec.workers.replicas={replicas}; use 1 to {replicas}",
        values={"got": "self.minReplicas", "replicas": "(has(self.replicas) ? self.replicas : 1)"},
        check=_min_replicas,
    ),
    Rule(
        id="spares-need-members",
        at="spec.workers",
        child="spares",
        cel=f"!has(self.spares) || self.spares == 0 || (has(self.replicas) && self.replicas >= {MEMBERS_LEAST})",
        message="spec.workers.spares={got} cannot help a run of one worker, because worker 0 hosts the rendezvous and "
        "cannot be replaced within it; use 2 or more spec.workers.replicas, or no spares",
        values={"got": "self.spares"},
        check=_spares_of_one,
    ),
    Rule(
        id="spares-need-our-launcher",
        at="spec",
        child="command",
        cel="!has(self.command) || self.command.size() == 0 || !has(self.workers) || !has(self.workers.spares) || "
        "self.workers.spares == 0",
        message="spec.command cannot go with spec.workers.spares={got}, because spares wait in our launcher and the "
        "program brings torchrun; leave one of the two out",
        values={"got": "self.workers.spares"},
        check=_spares_of_program,
    ),
    Rule(
        id="template-restart-policy",
        at=_POD,
        child="restartPolicy",
        cel="!has(self.restartPolicy)",
        message="spec.workers.template.spec.restartPolicy={got} is not yours to set, because the operator restarts "
        "whole attempts; leave it out and use spec.failurePolicy",
        values={"got": "self.restartPolicy"},
        check=_restart_policy,
    ),
    Rule(
        id="template-env",
        at=_POD,
        child="containers",
        cel=f"!has(self.containers) || !self.containers.exists(c, {_BAD_MAIN})",
        message="spec.workers.template.spec.containers[pytorch].env sets a variable that the operator sets itself; "
        "use a name other than TRAINRUN_*, PET_*, RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
        check=_reserved_env,
    ),
    Rule(
        id="template-main-container",
        at=_POD,
        child="containers",
        cel="!has(self.containers) || self.containers.all(c, c.name != 'pytorch' || "
        "!(has(c.image) || has(c.command) || has(c.args)))",
        message="spec.workers.template.spec.containers[pytorch] sets image, command or args; use spec.image and "
        "spec.command",
        check=_owned_fields,
    ),
    Rule(
        id="template-container-twice",
        at=_POD,
        child="containers",
        cel="!has(self.containers) || self.containers.all(c, self.containers.exists_one(d, d.name == c.name))",
        message="spec.workers.template.spec.containers has {got} twice; merging goes by name, so give each name once",
        values={
            "got": "self.containers.filter(c, !self.containers.exists_one(d, d.name == c.name))[0].name",
        },
        check=_container_twice,
    ),
    Rule(
        id="template-init-container-names",
        at=_POD,
        child="initContainers",
        cel="!has(self.initContainers) || "
        "self.initContainers.all(c, c.name != 'pytorch' && c.name != 'trainrun-agent')",
        message="spec.workers.template.spec.initContainers uses the name pytorch or trainrun-agent, which the operator "
        "needs; use another name",
        check=_reserved_container,
    ),
    Rule(
        id="template-labels",
        at=_METADATA,
        child="labels",
        cel="!has(self.labels) || "
        "self.labels.all(k, !k.startsWith('trainrun.dev/') && !k.startsWith('training.kubeflow.org/'))",
        message="spec.workers.template.metadata.labels has a label under trainrun.dev/ or training.kubeflow.org/, "
        "which the operators set themselves; use another prefix",
        check=_reserved_label,
    ),
    Rule(
        id="template-auto-resume",
        at=_METADATA,
        child="annotations",
        cel="!has(self.annotations) || !(" + " || ".join(f"'{name}' in self.annotations" for name in AUTO_RESUME) + ")",
        message="spec.workers.template.metadata.annotations asks for HyperPod's job auto-resume, which would fight "
        "this operator's restarts; leave it out",
        check=_auto_resume,
    ),
)
