"""`trainrun sweep`: several runs of one manifest, one after the other, then a table, a page and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from trainrun_operator.cli.run import run_order
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.order import Exit, ManifestRefusedError, Order, checked_manifest
from trainrun_operator.report.records import read
from trainrun_operator.sweep import evaluations
from trainrun_operator.sweep.page import sweep_page
from trainrun_operator.sweep.results import Row, as_json, cells, heads, row, sources
from trainrun_operator.sweep.variants import Axis, BadSweep, Variant, make_variants, parse_axis

GOES_ON = (Exit.SUCCEEDED, Exit.FAILED)
"""A run that fails is a result; one that is stopped, or cannot begin, ends the sweep."""
MOST_COLUMNS = 10_000
"""Of characters: more than 64 runs beside each other have."""


@dataclass(frozen=True)
class Sweep:
    """What was asked for."""

    file: Path
    over: tuple[str, ...]
    workdir: Path
    nodes: int | None = None
    is_dry: bool = False
    """Only write the manifests."""


def sweep(wanted: Sweep) -> int:
    """Run all; returns the exit code. The same command goes on after a stop, and runs nothing twice."""
    try:
        manifest = checked_manifest(wanted.file)
        axes = [parse_axis(words) for words in wanted.over]
        variants = make_variants(manifest, axes)
        folder = wanted.workdir / f"{manifest['metadata']['name']}-sweep"
        files = write_variants(variants, folder)
    except BadSweep as error:
        print(f"trainrun sweep: {error}", file=sys.stderr)
        return Exit.USAGE
    except ManifestRefusedError as error:
        print(error, file=sys.stderr)
        return Exit.REFUSED
    if wanted.is_dry:
        print("\n".join(map(str, files)))
        return Exit.SUCCEEDED
    code = Exit.SUCCEEDED
    for number, (variant, file) in enumerate(zip(variants, files, strict=True), 1):
        said = ", ".join(f"{axis.field}={value}" for axis, value in zip(axes, variant.values, strict=True))
        print(f"--- {variant.name} ({number} of {len(variants)}): {said}", flush=True)
        one = Exit(run_order(Order(file, wanted.workdir, wanted.nodes, folder=wanted.file.parent)))
        code = max(code, one)
        if one not in GOES_ON:
            break
    rows = [_row(variant, wanted.workdir) for variant in variants]
    show(axes, rows)
    (folder / "sweep.json").write_text(json.dumps(as_json(axes, rows), indent=2) + "\n")
    page = folder / "sweep.html"
    page.write_text(sweep_page(manifest["metadata"]["name"], axes, rows), encoding="utf-8")
    print(page)
    return code


def write_variants(variants: Sequence[Variant], folder: Path) -> list[Path]:
    """One manifest each, checked before the first one runs. Raises ManifestRefusedError."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for variant in variants:
        file = folder / f"{variant.name}.yaml"
        file.write_text(yaml.safe_dump(variant.manifest, sort_keys=False))
        checked_manifest(file)
        files.append(file)
    return files


def show(axes: Sequence[Axis], rows: Sequence[Row]) -> None:
    """The tables for a terminal."""
    _print("", heads(axes, rows), [cells(one, sources(rows)) for one in rows], words=len(axes) + 2)
    measured = evaluations.lines(rows)
    if measured:
        lines = [evaluations.cells(rows, line) for line in measured]
        _print("what the stages measured", evaluations.heads(rows), lines, words=2)


def _print(title: str, names: Sequence[str], lines: Sequence[Sequence[str]], *, words: int) -> None:
    """The first columns are words, the others numbers. A narrow terminal breaks lines where it likes, and no word of
    them is broken by the table."""
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number < words else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    Console(highlight=False, soft_wrap=True, width=MOST_COLUMNS).print(table)


def _row(variant: Variant, workdir: Path) -> Row:
    run_dir = RunDir(workdir / variant.name)
    records = read(run_dir.root) if run_dir.status.exists() else None
    return row(variant, records, evaluations.read_measured(run_dir.checkpoints))
