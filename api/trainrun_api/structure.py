"""Wrong types, missing and unknown fields: pydantic's errors as sentences with the path as the user wrote it.

In a cluster the API server speaks about these in its own words; path and verdict are the same.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainrun_api.crd import Schema, root_schema, structural
from trainrun_api.manifest import Problem
from trainrun_api.v1alpha1 import TrainingRun

_WANTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_SHOWN_CHARACTERS = 60
Location = tuple[int | str, ...]
_PLAIN_KEY = re.compile(r"^[A-Za-z_][\w-]*$")


class _Place(NamedTuple):
    """A field in a schema."""

    schema: Schema
    location: Location


def without_nulls(value: Any) -> Any:
    """The value as the API server stores it: a field that is null counts as absent."""
    if isinstance(value, Mapping):
        return {name: without_nulls(child) for name, child in value.items() if child is not None}
    if isinstance(value, list):
        return [without_nulls(child) for child in value]
    return value


def parse(manifest: Mapping[str, Any]) -> TrainingRun | list[Problem]:
    """The typed run, or why there is none. `manifest` has its nulls removed."""
    problems = _metadata_problems(manifest.get("metadata"))
    try:
        run = TrainingRun.model_validate(manifest, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        return problems + _merged([_problem(detail, manifest, root_schema(), "") for detail in error.errors()])
    return problems or run


def problems_of(
    error: ValidationError, written: Mapping[str, Any], where: str, model: type[BaseModel]
) -> list[Problem]:
    """What pydantic found in a mapping that the schema leaves open; `where` is its path in the manifest."""
    schema = structural(model.model_json_schema(by_alias=True))
    return _merged([_problem(detail, written, schema, where) for detail in error.errors()])


def _metadata_problems(metadata: object) -> list[Problem]:
    if metadata is None:
        return [_structural("metadata.name", "metadata.name is missing; give the run a name")]
    if not isinstance(metadata, Mapping):
        return []  # pydantic says so
    problems = []
    if "name" not in metadata:
        problems.append(_structural("metadata.name", "metadata.name is missing; give the run a name"))
    for name in ("name", "namespace"):
        if name in metadata and not isinstance(metadata[name], str):
            path = f"metadata.{name}"
            problems.append(_structural(path, f"{path}={_shown(metadata[name])} {_is_not(metadata[name], 'a string')}"))
    for name in ("labels", "annotations"):
        if not isinstance(metadata.get(name, {}), Mapping):
            problems.append(_structural(f"metadata.{name}", f"metadata.{name} is not a mapping; use name: value"))
            continue
        for key, value in metadata.get(name, {}).items():
            if not isinstance(value, str):
                path = f"metadata.{name}[{key}]"
                problems.append(_structural(path, f"{path}={_shown(value)} {_is_not(value, 'a string')} in quotes"))
    return problems


def _structural(path: str, message: str) -> Problem:
    return Problem(path, message, "structural")


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """One problem per path: an int-or-string field makes pydantic complain once for each."""
    out: dict[str, Problem] = {}
    for problem in problems:
        if problem.path in out and problem.message != out[problem.path].message:
            message = out[problem.path].message.replace("use an integer", "use an integer or a string")
            out[problem.path] = problem._replace(message=message)
        else:
            out[problem.path] = problem
    return list(out.values())


def _problem(detail: ErrorDetails, manifest: Mapping[str, Any], schema: Schema, where: str) -> Problem:
    location, value = _located(detail, manifest)
    path = ".".join(part for part in (where, _written(location)) if part)
    return Problem(path, _sentence(path, _Place(schema, location), value, detail), "structural")


def _located(detail: ErrorDetails, manifest: Mapping[str, Any]) -> tuple[Location, Any]:
    """The part of pydantic's location that exists in the manifest (plus a missing field), and the value there."""
    here: Any = manifest
    walked: list[int | str] = []
    for step in detail["loc"]:
        if isinstance(here, Mapping) and (step in here or detail["type"] == "missing"):
            walked.append(step)
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            walked.append(step)
            here = here[step]
        else:
            break
    return tuple(walked), here


def _sentence(path: str, place: _Place, value: Any, detail: ErrorDetails) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "missing":
        return f"{path} is missing; it is required ({_description(place)})"
    if kind == "extra_forbidden":
        return f"{path} is not a field; {_instead(place)}"
    if kind in _WANTED:
        return f"{_with_value(path, value)} {_is_not(value, _WANTED[kind])}"
    if kind == "literal_error":
        return f"{_with_value(path, value)} is none of {context['expected']}; use one of these"
    bounds = {
        "greater_than_equal": ("ge", "is less than {}; use {} or more"),
        "greater_than": ("gt", "is not more than {}; use more than {}"),
        "less_than_equal": ("le", "is more than {}; use at most {}"),
        "less_than": ("lt", "is not less than {}; use less than {}"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return f"{_with_value(path, value)} {words.format(context[key], context[key])}"
    if kind in ("string_too_short", "too_short"):
        return f"{path} is shorter than {context['min_length']}; give at least that many {_units(value)}"
    if kind in ("string_too_long", "too_long"):
        return (
            f"{path} has {len(value)} {_units(value)}, more than {context['max_length']}; "
            f"use at most {context['max_length']}"
        )
    if kind == "string_pattern_mismatch":
        return f"{_with_value(path, value)} does not match {context['pattern']}; use a text that does"
    if kind == "value_error":
        return f"{_with_value(path, value)} {context['error']}"
    return f"{_with_value(path, value)} is not valid: {detail['msg']}"


def _is_not(value: object, wanted: str) -> str:
    if isinstance(value, bool):
        got = "a boolean"
    elif isinstance(value, int):
        got = "an integer"
    elif isinstance(value, float):
        got = "a number with a fraction"
    else:
        got = "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "a mapping"
    return f"is {got}; use {wanted}"


def _units(value: object) -> str:
    return "characters" if isinstance(value, str) else "entries"


def _with_value(path: str, value: object) -> str:
    return path if isinstance(value, (list, Mapping)) else f"{path}={_shown(value)}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _written(location: Location) -> str:
    out = ""
    for step in location:
        if isinstance(step, int):
            out += f"[{step}]"
        elif _PLAIN_KEY.match(step):
            out += f".{step}" if out else step
        else:
            out += f"[{step}]"
    return out


def _schema_of(place: _Place) -> Schema:
    node = place.schema
    for step in place.location:
        if isinstance(step, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(step) or node.get("additionalProperties") or {}
    return node


def _description(place: _Place) -> str:
    text = str(_schema_of(place).get("description", "required")).rstrip(".")
    return text[:1].lower() + text[1:]


def _instead(place: _Place) -> str:
    names = sorted(_schema_of(place._replace(location=place.location[:-1])).get("properties", {}))
    close = difflib.get_close_matches(str(place.location[-1]), names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"use one of {', '.join(names)}"
