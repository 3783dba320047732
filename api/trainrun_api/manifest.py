"""Reads a manifest file the way kubectl would, and says in one sentence why it cannot.

PyYAML alone would let a second `replicas:` silently win, and would read `lr: 3e-4` as a string where kubectl reads a
number. Both are repaired here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from trainrun_api.contract import GROUP

API_VERSION = f"{GROUP}/v1alpha1"
KIND = "TrainingRun"
SIZE_LIMIT_BYTES = 1_500_000
"""etcd's limit for one object: a larger file cannot be a TrainingRun."""


class Problem(NamedTuple):
    """One reason why a manifest is refused."""

    path: str
    """Field path as the user wrote it; "" for the file as a whole."""
    message: str
    """One sentence: what is wrong, the value got, what to do."""
    kind: Literal["file", "structural", "cross", "immutable", "later"]
    rule: str = ""
    """Id of the rule, for kinds other than file and structural."""


class ManifestError(Exception):
    """A file holds no single YAML mapping; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """YAML as the API server understands it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"line {line}: the key {key!r} stands twice")
            if not isinstance(key, str):
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"line {line}: the key {key!r} is read as {type(key).__name__}, put it in quotes"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_manifest(path: Path) -> dict[str, Any]:
    """The TrainingRun in a file, unchecked but for apiVersion and kind. Raises ManifestError."""
    try:
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise _error(f"{path} is larger than {SIZE_LIMIT_BYTES} bytes; no Kubernetes object may be that large")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _error(f"{path} cannot be read: {error.strerror}; give the path of a manifest file") from error
    except UnicodeDecodeError as error:
        raise _error(f"{path} is not UTF-8 text; give a YAML file") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: str, name: str) -> dict[str, Any]:
    """The TrainingRun in a text; `name` stands for it in sentences. Raises ManifestError."""
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.YAMLError as error:
        raise _error(f"{name} is not valid YAML: {_why(error)}; correct that line") from error
    if not documents:
        raise _error(f"{name} is empty; give a manifest of kind {KIND}")
    if len(documents) > 1:
        raise _error(f"{name} has {len(documents)} documents; give one {KIND} per file")
    manifest = documents[0]
    if not isinstance(manifest, dict):
        raise _error(f"{name} holds no mapping; give a manifest of kind {KIND}")
    if manifest.get("kind") != KIND:
        raise _error(f"{name} has kind={manifest.get('kind')}; use kind: {KIND}", "kind")
    if manifest.get("apiVersion") != API_VERSION:
        raise _error(f"{name} has apiVersion={manifest.get('apiVersion')}; use apiVersion: {API_VERSION}", "apiVersion")
    return manifest


def _error(message: str, path: str = "") -> ManifestError:
    return ManifestError(Problem(path, message, "file"))


def _why(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        return where + " ".join((error.problem or "cannot be parsed").split())
    return " ".join(str(error).split())
