"""The CRD's CEL rules, evaluated as the API server does: at each schema node, `oldSelf` rules on updates only."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import celpy
from celpy import celtypes
from trainrun_api.crd import crd

ENVIRONMENT = celpy.Environment()


def _format(template: celtypes.StringType, values: celtypes.ListType) -> celtypes.StringType:
    """`format` of the API server's string library, with %s only."""
    texts = iter(str(int(v)) if isinstance(v, celtypes.IntType) else str(v) for v in values)
    pieces = str(template).replace("%%", "\0").split("%s")
    text = "".join(piece + (next(texts) if index < len(pieces) - 1 else "") for index, piece in enumerate(pieces))
    return celtypes.StringType(text.replace("\0", "%"))


@functools.cache
def _program(source: str) -> Any:
    return ENVIRONMENT.program(ENVIRONMENT.compile(source), functions={"format": _format})


def verdict(manifest: dict[str, Any], before: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """(schema node, sentence) of each rule that the manifest breaks."""
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return list(_broken(schema, manifest, before, ""))


def _broken(schema: dict[str, Any], new: Any, old: Any, path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        needs_old = "oldSelf" in rule["rule"]
        if needs_old and old is None:
            continue
        facts = {"self": celpy.json_to_cel(new)}
        if needs_old:
            facts["oldSelf"] = celpy.json_to_cel(old)
        if not _program(rule["rule"]).evaluate(facts):
            sentence = rule.get("message") or str(_program(rule["messageExpression"]).evaluate(facts))
            yield (path + rule.get("fieldPath", "")).removeprefix("."), sentence
    for name, child in schema.get("properties", {}).items():
        if name in new:
            below = old.get(name) if isinstance(old, dict) else None
            if child.get("type") == "object":
                yield from _broken(child, new[name], below, f"{path}.{name}" if path else name)
