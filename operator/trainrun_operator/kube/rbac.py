"""What the operator may do, per feature, as data: the chart's role and the tests' role are made from this list.

A verb that is not here is refused by the API server, which says so by name; a verb that nothing needs is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainrun_api.contract import GROUP

from trainrun_operator.cluster import Object

ROLE = "trainrun-operator"
"""Name of the roles, unless the chart is installed under another name."""

READ = ("get", "list", "watch")
WRITE = (*READ, "create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Grant:
    """Verbs on resources of one API group, with their reason."""

    feature: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]


CLUSTER_WIDE: tuple[Grant, ...] = (Grant("node health, and nodes that are gone", "", ("nodes",), READ),)
"""Nodes belong to no namespace, so that also an operator of one namespace needs these."""

PER_NAMESPACE: tuple[Grant, ...] = (
    Grant("runs are watched and read live", GROUP, ("trainingruns",), READ),
    Grant("status is the run's memory", GROUP, ("trainingruns/status",), ("update",)),
    Grant("ttlSecondsAfterFinished", GROUP, ("trainingruns",), ("delete",)),
    Grant("an attempt is a PyTorchJob", "kubeflow.org", ("pytorchjobs",), (*READ, "create", "delete")),
    Grant("evidence, and stops with their own grace", "", ("pods",), ("list", "watch", "delete")),
    Grant("a job's pods are stopped in one call", "", ("pods",), ("deletecollection",)),
    Grant("a lost pod is taken from its job (workers.spares)", "", ("pods",), ("patch",)),
    Grant("what happened, in kubectl describe", "", ("events",), ("get", "create", "update")),
    Grant("why a job's pods do not appear (a quota, a webhook)", "", ("events",), ("list",)),
)
"""In every namespace that is served."""

OWN_NAMESPACE: tuple[Grant, ...] = (
    Grant("fleet facts (node ledger, repair caps)", "", ("configmaps",), ("get", "create", "update")),
    Grant("one of several operators leads", "coordination.k8s.io", ("leases",), ("get", "create", "update")),
)
"""In the operator's own namespace, for objects that it makes itself. They are not named by `resourceNames`: a create
carries no name that the API server could compare, so that a role by name would have to allow every name anyway."""

SCANNING: tuple[Grant, ...] = (
    Grant("kinds that are installed later", "apiextensions.k8s.io", ("customresourcedefinitions",), ("list", "watch")),
    Grant("namespaces that are made later", "", ("namespaces",), ("list", "watch")),
)
"""Only for an operator of all namespaces (kopf's own scan of the cluster)."""

VIEW: tuple[Grant, ...] = (
    Grant("who may see a namespace sees its runs", GROUP, ("trainingruns", "trainingruns/status"), READ),
)
EDIT: tuple[Grant, ...] = (
    Grant("who may edit a namespace starts runs", GROUP, ("trainingruns",), WRITE),
    Grant("kubectl scale", GROUP, ("trainingruns/scale",), ("get", "update", "patch")),
)
"""For people: added to the cluster's own roles view, edit and admin."""


def rules(*grants: tuple[Grant, ...]) -> list[Object]:
    """As `rules` of a Role or ClusterRole."""
    return [
        {"apiGroups": [grant.group], "resources": list(grant.resources), "verbs": list(grant.verbs)}
        for group in grants
        for grant in group
    ]
