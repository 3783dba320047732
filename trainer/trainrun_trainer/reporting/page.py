"""report.html of a chain of stages: sections in a manager's reading order. Everything is inline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainrun_api.page.document import document, section, write_page
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import clock_time, count, duration, plural

from trainrun_trainer.reporting import curves, instructions, result, tables, texts
from trainrun_trainer.reporting.comparing import Comparison, comparisons, sentences
from trainrun_trainer.reporting.records import Stage, read_stages

REPORT = "report.html"
PERPLEXITY = "Perplexity says how much a text surprises a model: lower is better."
SHARES = "All other measures are shares of 1: higher is better."


def write_report(root: Path, names: list[str], title: str, out: Path) -> None:
    """Write `out/report.html` about the named stages of the run whose checkpoint.path is `root`. Raises OSError."""
    root = root.absolute()
    stages = read_stages(root, names)
    out.mkdir(parents=True, exist_ok=True)
    write_page(out / REPORT, page(stages, comparisons(stages, root), title))


def page(stages: Sequence[Stage], compared: Sequence[Comparison], title: str) -> str:
    """The whole document."""
    body = el(
        "main",
        _header(stages, compared, title),
        _warnings(stages, compared),
        [result.table_of(one) for one in compared],
        instructions.more_sets(compared, stages),
        curves.models(stages),
        curves.learning(stages),
        tables.cost(stages),
        [result.samples(one) for one in compared],
        texts.texts(stages),
        tables.lineage(stages),
        tables.configurations(stages),
        class_="report",
    )
    return document(title or "Report", body)


def _header(stages: Sequence[Stage], compared: Sequence[Comparison], title: str) -> Markup:
    told = [sentence for one in compared for sentence in sentences(one)]
    if not told:
        told = ["No stage evaluated a model beside a baseline: better or worse cannot be told."]
    story: Child = el("p", told[0], class_="story") if len(told) == 1 else el("ul", [el("li", one) for one in told])
    begins = [stage.started_at for stage in stages if stage.started_at is not None]
    ends = [stage.ended_at for stage in stages if stage.ended_at is not None]
    when = f", {clock_time(min(begins))} to {clock_time(max(ends))}" if begins and ends else ""
    return el(
        "header",
        el("p", f"Report on {plural(len(stages), 'stage')}{when}", class_="eyebrow"),
        el("h1", title or "Report"),
        el("div", story, el("p", " ".join([*_meaning(compared), _effort(stages)])), class_="story"),
    )


def _meaning(compared: Sequence[Comparison]) -> Iterator[str]:
    kinds = {measure.is_perplexity for one in compared for measure in one.measures}
    if True in kinds:
        yield PERPLEXITY
    if False in kinds:
        yield SHARES


def _effort(stages: Sequence[Stage]) -> str:
    steps = sum(stage.num_steps or 0 for stage in stages)
    tokens = sum(stage.tokens or 0 for stage in stages)
    seconds = sum(stage.seconds or 0.0 for stage in stages)
    trained = f"{steps:,} training steps on {count(tokens)} tokens; " if steps else ""
    return f"What it took: {trained}{duration(seconds)} over all stages."


def _warnings(stages: Sequence[Stage], compared: Sequence[Comparison]) -> Markup | None:
    found = list(dict.fromkeys([*(warning for one in compared for warning in one.warnings), *_doubts(stages)]))
    if not found:
        return None
    return section("Warnings", el("ul", [el("li", warning) for warning in found]), class_="warnings")


def _doubts(stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        yield from (str(warning) for warning in stage.curve.get("warnings", []))
        if not stage.record:
            yield f"stage {stage.name} has no record: it has not begun, or its folder is gone"
        elif not stage.is_done:
            yield f"stage {stage.name} has not ended; what is said of it may change"
        if stage.num_diverged:
            yield (
                f"stage {stage.name}: {plural(stage.num_diverged, 'step')} ran twice, after a restart, with two "
                "different losses"
            )
