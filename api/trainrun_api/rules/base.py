"""What a cross-field rule is: one sentence, said by the API server (CEL) and by `trainrun validate` (Python).

The sentence is one template. Its placeholders are CEL expressions on one side and values that the Python
predicate returns on the other, so the two can differ only if a test is missing. CEL stays within the standard
library (and `format`): the tests evaluate it without an API server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainrun_api.v1alpha1 import TrainingRunSpec

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Facts:
    """What predicates look at. `spec` has defaults filled in; `raw` and `old` are as written, nulls removed."""

    name: str
    spec: TrainingRunSpec
    raw: Mapping[str, Any]
    old: Mapping[str, Any] | None = None


Values = Mapping[str, object]
"""Placeholder -> value got; returned by a predicate when the rule is broken."""

OK: Values | None = None


@dataclass(frozen=True)
class Rule:
    """One cross-field rule."""

    id: str
    at: str
    """Schema node that carries the CEL rule ("" is the root); `self` is its value."""
    child: str | None
    """Child of `at` that the error names; None: the node itself."""
    cel: str
    """True when all is well. With `oldSelf` it is looked at on updates only."""
    message: str
    """Sentence with {placeholders}."""
    check: Callable[[Facts], Values | None]
    """None when all is well, else the values for the sentence."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Placeholder -> CEL expression."""
    kind: Literal["cross", "immutable", "later"] = "cross"
    """later: the field is known, its behaviour comes with a later version; said after all others."""

    @property
    def path(self) -> str:
        """The field that the sentence is about, as the user wrote it."""
        return ".".join(part for part in (self.at, self.child) if part)

    def sentence(self, values: Values) -> str:
        """The sentence with its values."""
        return self.message.format_map({name: _as_cel_prints(value) for name, value in values.items()})

    def message_expression(self) -> str | None:
        """CEL that builds the same sentence; None if it has no placeholders."""
        if not self.values:
            return None
        pieces = _PLACEHOLDER.split(self.message)
        text = "".join("%s" if index % 2 else piece.replace("%", "%%") for index, piece in enumerate(pieces))
        # `format`, because the API server cannot bound the cost of `string(x) + '...'` and refuses it
        return f"{_cel_literal(text)}.format([{', '.join(self.values[name] for name in pieces[1::2])}])"


def _cel_literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _as_cel_prints(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def pick(path: str, default: str, *, root: str = "self") -> str:
    """CEL that reads an optional nested field: `pick("workers.replicas", "1")`."""
    guards, here = [], root
    for name in path.split("."):
        here = f"{here}.{name}"
        guards.append(f"has({here})")
    return f"({' && '.join(guards)} ? {here} : {default})"
