"""The chart's roles are the operator's own list, no more and no less, in each mode."""

from __future__ import annotations

import pytest
from trainrun_operator.generate import CHART_RULES, KUSTOMIZE_ROLES
from trainrun_operator.kube import rbac
from trainrun_operator.kube.manifests import chart_rules, kustomize_roles

from tests.chart.rendering import NAMESPACE, RELEASE, ROOT, Chart, Object, of_kind

SUBJECT = [{"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}]


def roles(objects: list[Object]) -> dict[tuple[str, str, str], list[Object]]:
    """Rules by kind, namespace and name."""
    return {
        (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): obj["rules"]
        for kind in ("ClusterRole", "Role")
        for obj in of_kind(objects, kind)
        if not any("aggregate-to" in label for label in obj["metadata"]["labels"])
    }


def bound(objects: list[Object]) -> set[tuple[str, str, str]]:
    """The roles that are bound to the operator's account."""
    found = set()
    for obj in [*of_kind(objects, "ClusterRoleBinding"), *of_kind(objects, "RoleBinding")]:
        assert obj["subjects"] == SUBJECT
        assert f"{obj['roleRef']['kind']}Binding" == obj["kind"]
        found.add((obj["roleRef"]["kind"], obj["metadata"].get("namespace", ""), obj["roleRef"]["name"]))
    return found


def test_operator_of_all_namespaces(chart: Chart) -> None:
    """One ClusterRole, and a Role for its own objects."""
    objects = chart.render()
    assert roles(objects) == {
        ("ClusterRole", "", RELEASE): rbac.rules(rbac.CLUSTER_WIDE, rbac.PER_NAMESPACE, rbac.SCANNING),
        ("Role", NAMESPACE, RELEASE): rbac.rules(rbac.OWN_NAMESPACE),
    }
    assert bound(objects) == set(roles(objects))


@pytest.mark.parametrize("watched", ["research", NAMESPACE], ids=["another", "its-own"])
def test_operator_of_one_namespace(chart: Chart, watched: str) -> None:
    """Of the cluster it may read nodes only; the name leaves room for a sister in another namespace."""
    objects = chart.render({"watchNamespace": watched})
    assert roles(objects) == {
        ("ClusterRole", "", f"{RELEASE}-{NAMESPACE}"): rbac.rules(rbac.CLUSTER_WIDE),
        ("Role", NAMESPACE, RELEASE): rbac.rules(rbac.OWN_NAMESPACE),
        ("Role", watched, f"{RELEASE}-runs"): rbac.rules(rbac.PER_NAMESPACE),
    }
    assert bound(objects) == set(roles(objects))


def test_roles_from_elsewhere(chart: Chart) -> None:
    """rbac.create=false makes none."""
    assert roles(chart.render({"rbac": {"create": False}})) == {}


def test_people_get_their_rights_through_the_clusters_own_roles(chart: Chart) -> None:
    """view sees runs, edit and admin start them; nobody but the operator writes status."""
    found = {
        obj["metadata"]["name"]: (
            sorted(label for label in obj["metadata"]["labels"] if "aggregate" in label),
            obj["rules"],
        )
        for obj in of_kind(chart.render({"rbac": {"create": False}}), "ClusterRole")
    }
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert found == {
        f"{RELEASE}-view": ([f"{prefix}view"], rbac.rules(rbac.VIEW)),
        f"{RELEASE}-edit": ([f"{prefix}admin", f"{prefix}edit"], rbac.rules(rbac.EDIT)),
    }
    status = [grant.verbs for grant in (*rbac.VIEW, *rbac.EDIT) if "trainingruns/status" in grant.resources]
    assert status == [rbac.READ]
    assert not of_kind(chart.render({"rbac": {"aggregate": False, "create": False}}), "ClusterRole")


def test_operator_never_writes_nodes() -> None:
    """Nor anything by a wildcard."""
    grants = [*rbac.CLUSTER_WIDE, *rbac.PER_NAMESPACE, *rbac.OWN_NAMESPACE, *rbac.SCANNING, *rbac.VIEW, *rbac.EDIT]
    for grant in grants:
        assert "*" not in {grant.group, *grant.resources, *grant.verbs}
        if "nodes" in grant.resources:
            assert set(grant.verbs) <= set(rbac.READ)


def test_generated_files_are_current() -> None:
    """`make generate` was run."""
    assert (ROOT / CHART_RULES).read_text() == chart_rules()
    assert (ROOT / KUSTOMIZE_ROLES).read_text() == kustomize_roles()
