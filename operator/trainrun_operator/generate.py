"""`python -m trainrun_operator.generate [ROOT]` writes what is made from the operator's code."""

from __future__ import annotations

import sys
from pathlib import Path

from trainrun_operator.core.catalogue import conditions_page, page
from trainrun_operator.kube.manifests import chart_rules, kustomize_roles

CHART_RULES = Path("charts/trainrun/files/rbac.yaml")
KUSTOMIZE_ROLES = Path("deploy/kustomize/rbac.yaml")


def main(root: Path) -> None:
    """Write every generated file of the operator below the repository's root."""
    texts = {
        Path("docs/rules.md"): page(),
        Path("docs/conditions.md"): conditions_page(),
        CHART_RULES: chart_rules(),
        KUSTOMIZE_ROLES: kustomize_roles(),
    }
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
