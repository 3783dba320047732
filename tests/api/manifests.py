"""The good manifest and the table of bad ones, for every test that applies them to somebody."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from trainrun_api.manifest import load_manifest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One row of bad_manifests.yaml."""

    id: str
    patch: dict[str, Any]
    says: str
    path: str
    sentence: str
    rule: str = ""
    old: dict[str, Any] | None = None
    also: list[str] = field(default_factory=list)

    @property
    def manifest(self) -> dict[str, Any]:
        """What is refused."""
        return merged(good(), self.patch)

    @property
    def before(self) -> dict[str, Any] | None:
        """The version that it would replace; None: it is new."""
        return None if self.old is None else merged(good(), self.old)


def good() -> dict[str, Any]:
    """A fresh copy of the good manifest."""
    return load_manifest(HERE / "good_manifest.yaml")


def cases() -> list[Case]:
    """The table."""
    rows = yaml.safe_load((HERE / "bad_manifests.yaml").read_text(encoding="utf-8"))
    return [Case(**row) for row in rows]


def merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    out = copy.deepcopy(target)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, dict) and isinstance(out.get(name), dict):
            out[name] = merged(out[name], value)
        else:
            out[name] = copy.deepcopy(value)
    return out
