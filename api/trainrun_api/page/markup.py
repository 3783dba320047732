"""Builds HTML and SVG from values: everything that is not markup itself is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "meta", "line", "rect", "circle", "path", "polyline", "polygon", "col", "hr"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def el(name: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """One element. `class_` and `stroke_width` become `class` and `stroke-width`; None leaves an attribute out."""
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"')
    opening = " ".join(words)
    if name in _VOID and not children:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other; None leaves nothing."""
    out = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            out.append(str(child))
        elif isinstance(child, (str, int, float)):
            out.append(html.escape(_text(child)))
        else:
            out.append(str(join(child)))
    return Markup("".join(out))


def _text(value: str | int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
