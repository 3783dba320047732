"""What the operator's user may do: nothing but what `rbac` lists, bound as a chart would bind it."""

from __future__ import annotations

from trainrun_operator.cluster import Object
from trainrun_operator.kube import rbac

from tests.controlplane.api import Api
from tests.controlplane.waiting import wait_for

OPERATOR_USER = "trainrun-operator"
OWN_NAMESPACE = "trainrun-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def prepare_operator(api: Api) -> None:
    """The operator's namespace, and the rights that bind to any namespace."""
    api.apply(f"/api/v1/namespaces/{OWN_NAMESPACE}", _named("v1", "Namespace", OWN_NAMESPACE))
    grant(api, "ClusterRole", "", "trainrun-nodes", rbac.rules(rbac.CLUSTER_WIDE))
    grant(api, "Role", OWN_NAMESPACE, "trainrun-fleet", rbac.rules(rbac.OWN_NAMESPACE))


def grant(api: Api, kind: str, namespace: str, name: str, rules: list[Object]) -> None:
    """A role, bound to the operator's user, and in force."""
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
    wait_granted(api, namespace, rules)


def wait_granted(api: Api, namespace: str, rules: list[Object]) -> None:
    """Until the operator's user may do all of it; without a namespace: in every one."""
    wanted = [
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    wait_for(lambda: all(may(api, namespace, *right) for right in wanted), "the operator's rights to be in force")


def may(api: Api, namespace: str, group: str, resource: str, verb: str) -> bool:
    """Whether the API server lets the operator's user do it. Its authorizer watches roles, so that the change of one is
    in force a moment after it was answered."""
    name, _, subresource = resource.partition("/")
    attributes = {"namespace": namespace, "group": group, "resource": name, "subresource": subresource, "verb": verb}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": OPERATOR_USER, "resourceAttributes": attributes},
    }
    return bool(api.create(REVIEWS, review)["status"]["allowed"])


def _named(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
