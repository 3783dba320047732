"""What the operator's user may do: nothing but what `rbac` lists, bound as a chart would bind it."""

from __future__ import annotations

from trainrun_operator.cluster import Object
from trainrun_operator.kube import rbac

from tests.controlplane.api import Api

OPERATOR_USER = "trainrun-operator"
OWN_NAMESPACE = "trainrun-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def prepare_operator(api: Api) -> None:
    """The operator's namespace, and the rights that bind to any namespace."""
    api.apply(f"/api/v1/namespaces/{OWN_NAMESPACE}", _named("v1", "Namespace", OWN_NAMESPACE))
    grant(api, "ClusterRole", "", "trainrun-nodes", rbac.rules(rbac.CLUSTER_WIDE))
    grant(api, "Role", OWN_NAMESPACE, "trainrun-fleet", rbac.rules(rbac.OWN_NAMESPACE))


def grant(api: Api, kind: str, namespace: str, name: str, rules: list[Object]) -> None:
    """A role, bound to the operator's user."""
    at = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
    version = "rbac.authorization.k8s.io/v1"
    plural = f"{kind.lower()}s"
    api.apply(f"{at}/{plural}/{name}", {**_named(version, kind, name), "rules": rules})
    binding = {
        **_named(version, f"{kind}Binding", name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR_USER}],
    }
    api.apply(f"{at}/{kind.lower()}bindings/{name}", binding)


def _named(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
