"""A whole page and its commonest parts. Everything is inline: nothing is fetched when it is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from trainrun_api.page.markup import Child, Markup, el, join

STYLE = Path(__file__).with_name("style.css")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser itself refuses to fetch anything or to run a script, whatever a log line or a sample holds."""


def document(title: str, body: Markup) -> str:
    """A page of its own, which fetches nothing and runs nothing."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{el('html', head, el('body', body), lang='en')}\n"


def write_page(path: Path, page: str) -> Path:
    """Replace the file in one step: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}")
    # a lone surrogate of a broken text becomes a question mark instead of ending the report
    temporary.write_text(page, encoding="utf-8", errors="replace")
    temporary.replace(path)
    return path


def section(title: str, *children: Child, class_: str | None = None) -> Markup:
    """A heading and what belongs to it."""
    return el("section", el("h2", title), children, class_=class_)


def table(heads: Sequence[str], rows: Iterable[Sequence[Child]], numbers: Iterable[int] = ()) -> Markup:
    """A table that scrolls by itself when it is too wide; `numbers` are the columns to align right."""
    right = set(numbers)

    def cells(name: str, row: Sequence[Child]) -> Markup:
        return join(el(name, cell, class_="n" if index in right else None) for index, cell in enumerate(row))

    head = el("thead", el("tr", cells("th", heads)))
    return el("div", el("table", head, el("tbody", [el("tr", cells("td", row)) for row in rows])), class_="scroll")


def unbroken(child: Child) -> Markup:
    """Something that stays on one line."""
    return el("span", child, class_="key")
