"""`python -m trainrun_operator.generate [ROOT]` writes the generated pages of the operator."""

from __future__ import annotations

import sys
from pathlib import Path

from trainrun_operator.core.catalogue import conditions_page, page


def main(root: Path) -> None:
    """Write docs/rules.md and docs/conditions.md below the repository's root."""
    for name, text in (("rules", page()), ("conditions", conditions_page())):
        (root / "docs" / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
