"""The runs of a sweep: a manifest, and the values of some of its fields. Pure: text and mappings in, mappings out."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

MOST_RUNS = 64
"""They run one after the other on one machine, and end in one table that people read."""
OWN_FIELDS = ("checkpoint.path",)
"""Every run of a sweep has its own."""


class BadSweep(Exception):
    """The axes cannot be swept; one sentence."""


@dataclass(frozen=True)
class Axis:
    """A field of the spec, as the user wrote it, and its values."""

    field: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Short, for a table's head."""
        return self.field.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Variant:
    """One run of the sweep."""

    manifest: dict[str, Any]
    values: tuple[Any, ...]
    """One for each axis."""

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.manifest["metadata"]["name"])


def parse_axis(words: str) -> Axis:
    """`config.data.mix.general=0,0.01,0.05`: values are read as YAML, lists in brackets. Raises BadSweep."""
    field, equals, text = words.partition("=")
    field = field.strip().removeprefix("spec.")
    if not equals or not all(field.split(".")):
        raise BadSweep(f"--over {words} is no field with values; write --over config.data.mix.general=0,0.01,0.05")
    if field in OWN_FIELDS:
        raise BadSweep(f"--over {field}: every run of a sweep gets its own; sweep another field")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        values = []
    if not values or None in values:
        raise BadSweep(f"--over {field}={text} has no values, or one that is empty; separate them by commas")
    if any(one == other and type(one) is type(other) for one, other in itertools.combinations(values, 2)):
        raise BadSweep(f"--over {field}={text} has a value twice; leave one out")
    return Axis(field, tuple(values))


def make_variants(manifest: Mapping[str, Any], axes: Sequence[Axis]) -> list[Variant]:
    """Every combination of the values, the last axis fastest, named `<run>-0`, `<run>-1` ... Raises BadSweep."""
    fields = [axis.field for axis in axes]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice is not None:
        raise BadSweep(f"--over {twice} is given twice; give all of its values at once")
    combinations = list(itertools.product(*(axis.values for axis in axes)))
    if len(combinations) > MOST_RUNS:
        raise BadSweep(f"these values make {len(combinations)} runs; a sweep has at most {MOST_RUNS}")
    return [_variant(manifest, axes, number, values) for number, values in enumerate(combinations)]


def _variant(manifest: Mapping[str, Any], axes: Iterable[Axis], number: int, values: tuple[Any, ...]) -> Variant:
    changed = copy.deepcopy(dict(manifest))
    changed["metadata"]["name"] = f"{changed['metadata']['name']}-{number}"
    checkpoint = changed["spec"]["checkpoint"]
    checkpoint["path"] = f"{str(checkpoint['path']).rstrip('/')}-{number}"
    for axis, value in zip(axes, values, strict=True):
        _set(changed["spec"], axis.field, value)
    return Variant(changed, values)


def _set(spec: dict[str, Any], field: str, value: Any) -> None:
    """A list's elements are found by their names: `stages.cpt.config.total_steps`."""
    *folders, last = field.split(".")
    here: Any = spec
    for depth, folder in enumerate(folders, 1):
        whole = f"spec.{'.'.join(folders[:depth])}"
        if isinstance(here, list):
            names = [str(one.get("name")) for one in here if isinstance(one, dict)]
            if folder not in names:
                said = ", ".join(names) or "none"
                raise BadSweep(
                    f"--over {field}: {whole} is not there; spec.{'.'.join(folders[: depth - 1])} has: {said}"
                )
            here = next(one for one in here if isinstance(one, dict) and str(one.get("name")) == folder)
            continue
        here = here.setdefault(folder, {})
        if not isinstance(here, dict | list):
            raise BadSweep(f"--over {field}: {whole} is {here!r} and has no fields")
    if isinstance(here, list):
        raise BadSweep(f"--over {field}: write the field of {last} that is swept, {field}.FIELD=...")
    here[last] = value
