"""The page tells what happened, in numbers that add up, and never trusts a text."""

from __future__ import annotations

import html
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainrun_api.page.chart import BOTTOM, HEIGHT, Series, line_chart, thinned, ticks
from trainrun_api.page.markup import Markup, el, join
from trainrun_api.page.words import clock_time, count, duration, figure, parse_time, percent, plural, size, times
from trainrun_operator.report import write_report
from trainrun_operator.report.__main__ import main
from trainrun_operator.report.records import read
from trainrun_operator.report.recovery import PHASES, recoveries

from tests.report import rundirs
from tests.report.pages import Page


@pytest.fixture
def survived(tmp_path: Path) -> Page:
    """The page of a run that survived two faults."""
    return Page(write_report(rundirs.survived(tmp_path)))


def test_story_tells_outcome_and_interruptions(survived: Page) -> None:
    """One glance: how far, how long, how good, what it cost."""
    assert "law-cpt reached step 80 of 80 in 1 min 00 s, loss 6.975 to 5" in survived.text
    assert "law perplexity 800 to 500" in survived.text
    assert "It was interrupted twice: 1 restart in place and 1 new attempt" in survived.text
    assert "15 steps done again; each step counts once." in survived.text


@pytest.mark.parametrize(
    "title",
    ["Learning", "Attempts", "Where the time went", "Failures", "Recovery", "Checkpoints", "Configuration and data"],
)
def test_sections(survived: Page, title: str) -> None:
    """Every question has its place."""
    assert f"<h2>{title}</h2>" in survived.source


def test_ledger_adds_up_to_the_wall_time(survived: Page) -> None:
    """Each class, its share, and a sum that is the time from creation to end."""
    assert "training 42.750 71.2 % Steps that still count." in survived.text
    assert "sum 60.000 100.0 % exactly the wall time of the run, 60.000 seconds" in survived.text


def test_ledger_that_does_not_add_up_is_not_called_exact(tmp_path: Path) -> None:
    """The page says both numbers instead of hiding the gap."""
    run = rundirs.survived(tmp_path)
    status = rundirs.survived_status()
    status["goodput"]["secondsByClass"]["lost"] += 1
    rundirs.write(run / "status.json", rundirs.run_object("law-cpt", status))
    text = Page(write_report(run)).text
    assert "exactly" not in text
    assert "sum 61.000 100.0 % the wall time of the run is 60.000 seconds" in text


def test_failures_have_evidence_rule_and_action(survived: Page) -> None:
    """What was seen, which rule spoke, what was done."""
    assert "03:00:31 0 50 NodeLost Node slot-1 is lost: no answer. node_lost It restarts at once" in survived.text
    assert "03:00:12 0 25 WorkerEnded A worker process ended abnormally (kill-worker@step=25)." in survived.text


def test_recovery_phases(tmp_path: Path) -> None:
    """The seconds between a fault and the next step, none lost and none counted twice."""
    in_place, anew = recoveries(rundirs.survived(tmp_path))
    assert (in_place.fault, in_place.cause) == ("kill-worker@step=25", "restarted in place")
    assert {phase: round(s, 3) for phase, s in in_place.seconds.items()} == {
        "start": 0.5, "rendezvous": 0.5, "load": 1.5, "first step": 0.25,
    }  # fmt: skip
    assert (anew.fault, anew.cause) == ("lose-node@step=50", "NodeLost")
    assert [round(anew.seconds[phase], 3) for phase in PHASES] == [1.5, 0.1, 2.4, 0.5, 1.5, 0.25]
    assert anew.total_seconds == pytest.approx(36.25 - 30.0)
    assert (in_place.repeated_steps, anew.repeated_steps) == (5, 10)


def test_recovery_without_a_fault_that_was_asked_for(tmp_path: Path) -> None:
    """A real failure has no fault record: its clock starts at the verdict."""
    run = rundirs.survived(tmp_path)
    rundirs.write_lines(run / "events.jsonl", [e for e in rundirs.survived_events() if e["type"] != "fault"])
    anew = recoveries(run)[1]
    assert anew.fault == "none was asked for"
    assert anew.seconds["detect"] == 0.0
    assert anew.total_seconds == pytest.approx(36.25 - 31.5)


def test_equal_replays_are_proven(survived: Page) -> None:
    """Steps that ran twice and their losses."""
    assert "15 steps ran again after a resume, each with the same loss to the last bit." in survived.text


def test_diverged_replays_are_said(tmp_path: Path) -> None:
    """A difference is never called equal."""
    text = Page(write_report(rundirs.survived(tmp_path, diverges=True))).text
    assert "10 of them with another loss (steps 41, 42, 43, 44, 45)" in text


def test_checkpoints_and_hashes(survived: Page) -> None:
    """What is committed, what was exported, and what it was trained on."""
    assert "80 3 1 03:01:20 1.5 MB digest80 exported" in survived.text
    assert "90 3" not in survived.text
    for words in ("config hash c0ffee", "data hash da7a", "world size 2", "law 38 1,110 71,070 1"):
        assert words in survived.text
    assert '"seed": 7' in survived.text


def test_chronicle_tells_each_decision_once(survived: Page) -> None:
    """The Event that repeats a decision is left out."""
    assert survived.text.count("Attempt 0 starts.") == 1
    assert "7 entries: decisions, actions, faults" in survived.text


def test_nothing_is_fetched_and_nothing_runs(survived: Page) -> None:
    """One file, no script, no reference to anything outside."""
    names = {tag for tag, _ in survived.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    for _, attributes in survived.elements:
        assert not {"src", "href", "xlink:href", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in survived.source
    assert "@import" not in survived.source
    assert "default-src 'none'" in html.unescape(survived.source)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """Names, messages and configuration come from users, logs and files."""
    run = rundirs.survived(tmp_path)
    text = (run / "status.json").read_text(encoding="utf-8") + (run / "events.jsonl").read_text(encoding="utf-8")
    for word in ("Node slot-1 is lost: no answer.", "node_lost", "kill-worker", "law-cpt", "NodeLost"):
        assert word in text
    poison = json.dumps(HOSTILE)[1:-1]
    for file in ("status.json", "events.jsonl", "checkpoints/metrics/c3.jsonl", "checkpoints/step-80-c3/manifest.json"):
        content = (run / file).read_text(encoding="utf-8")
        for word in (
            "Node slot-1 is lost: no answer.",
            "node_lost",
            "kill-worker",
            "law-cpt",
            "NodeLost",
            "law",
            "c0ffee",
        ):
            content = content.replace(word, poison)
        (run / file).write_text(content, encoding="utf-8")
    page = Page(write_report(run))
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert "alert(1)" in page.text
    assert HOSTILE in page.text


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    """No attempt, no step, no file but status: the page says so instead of failing."""
    rundirs.write(tmp_path / "status.json", rundirs.run_object("young", {}))
    text = Page(write_report(tmp_path)).text
    for words in (
        "No step was reported yet.",
        "No attempt was started yet.",
        "Nothing is booked yet.",
        "None is committed.",
    ):
        assert words in text


def test_run_that_is_going_on(tmp_path: Path) -> None:
    """Its last attempt is open and its newest lines are half written."""
    run = rundirs.survived(tmp_path)
    status = rundirs.survived_status()
    del status["result"], status["endedAt"], status["attempts"][1]["endedAt"], status["attempts"][1]["cause"]
    rundirs.write(run / "status.json", rundirs.run_object("law-cpt", {**status, "phase": "Running"}))
    for file in ("events.jsonl", "checkpoints/metrics/c3.jsonl"):
        with (run / file).open("a", encoding="utf-8") as stream:
            stream.write('{"step": 81, "lo')
    text = Page(write_report(run)).text
    assert "law-cpt is Running after 1 min 00 s, at step 80 of 80" in text
    assert "goes on" in text
    assert "booked so far" in text


def test_run_that_failed(tmp_path: Path) -> None:
    """The verdict with its evidence stands in the first sentence."""
    status = {
        **rundirs.survived_status(), "phase": "Failed", "result": "Failed",
        "failure": {"cause": "NumericalFault", "evidence": ["Loss is NaN at step 31."]},
        "progress": {"step": 30, "totalSteps": 80},
    }  # fmt: skip
    rundirs.write(tmp_path / "status.json", rundirs.run_object("nan", status))
    assert (
        "nan failed after 1 min 00 s at step 30 of 80: NumericalFault. Loss is NaN at step 31."
        in Page(write_report(tmp_path)).text
    )


def test_metrics_without_a_store(tmp_path: Path) -> None:
    """A store that cannot be read (S3) leaves metrics.jsonl."""
    rundirs.write(tmp_path / "status.json", rundirs.run_object("far", rundirs.survived_status()))
    rundirs.write_lines(tmp_path / "metrics.jsonl", [rundirs.step_line(step, 1) for step in range(1, 41)])
    assert len(read(tmp_path).steps) == 40


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the path, or how it wants to be called."""
    rundirs.survived(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert main([str(tmp_path / "absent")]) == 20
    assert "status.json" in capsys.readouterr().err


def test_report_is_replaced_whole(tmp_path: Path) -> None:
    """A reader never sees half a page; no temporary file stays."""
    run = rundirs.survived(tmp_path)
    assert write_report(run) == write_report(run) == run / "report.html"
    assert [path.name for path in run.iterdir() if "report" in path.name] == ["report.html"]


@given(low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6), wanted=st.integers(2, 10))
def test_ticks_are_few_round_and_in_order(low: float, span: float, wanted: int) -> None:
    """At least two, not many more than wanted, evenly apart."""
    found = ticks(low, low + span, wanted)
    assert 2 <= len(found) <= 2 * wanted + 2
    gaps = [b - a for a, b in pairwise(found)]
    assert min(gaps) > 0
    assert max(gaps) - min(gaps) <= 1e-6 * max(gaps) + 1e-9


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=300), most=st.integers(1, 50))
def test_thinning_keeps_range_and_end(values: list[float], most: int) -> None:
    """A long curve is drawn with few points, yet its extremes and its last step stay."""
    out = thinned([(float(x), y) for x, y in enumerate(values)], most)
    assert len(out) <= most
    assert out[-1][0] == len(values) - 1
    assert (min(low for *_, low, _ in out), max(high for *_, high in out)) == (min(values), max(values))


def test_long_runs_stay_small(tmp_path: Path) -> None:
    """A page of 20,000 steps is no larger than a browser likes."""
    rundirs.write(tmp_path / "status.json", rundirs.run_object("long", rundirs.survived_status()))
    rundirs.write_lines(tmp_path / "metrics.jsonl", [rundirs.step_line(step, 1) for step in range(1, 20001)])
    assert write_report(tmp_path).stat().st_size < 400_000


@given(text=st.text())
def test_markup_escapes_whatever_is_not_markup(text: str) -> None:
    """Children and attributes come back as they were."""
    escaped = str(el("p", text, title=text))
    match = re.fullmatch(r'<p title="([^"]*)">([^<>]*)</p>', escaped, re.DOTALL)
    assert match is not None
    assert [html.unescape(group) for group in match.groups()] == [html.unescape(html.escape(text))] * 2


def test_markup_of_nothing_and_of_lists() -> None:
    """None leaves nothing; lists are laid one after the other; markup stays markup."""
    assert join([None, ["a", [Markup("<b/>"), 1]], 0.5]) == "a<b/>10.5"
    assert el("br", class_=None) == "<br/>"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (duration(None), "\u2013"), (duration(0.44), "0.4 s"), (duration(59.4), "59 s"), (duration(59.6), "1 min 00 s"),
        (duration(3600), "1 h 00 min"), (duration(200_000), "2 d 07 h"),
        (count(None), "\u2013"), (count(40960), "40,960"), (count(2_100_000), "2.1 M"), (count(3.4e9), "3.4 B"),
        (size(None), "\u2013"), (size(999), "999 B"), (size(1_944_528), "1.94 MB"), (size(5e15), "5e+03 TB"),
        (figure(None), "\u2013"), (figure(5.84797), "5.848"), (figure(1027.4), "1,027"),
        (percent(None), "\u2013"), (percent(0.1444), "14.4 %"),
        (times(1), "once"), (times(2), "twice"), (times(3), "3 times"),
        (plural(1, "entry", "entries"), "1 entry"), (plural(2, "step"), "2 steps"),
        (clock_time(parse_time("2026-11-22T03:00:00Z")), "2026-11-22 03:00:00 UTC"),
        (clock_time(parse_time("2026-11-22T03:00:00")), "2026-11-22 03:00:00 UTC"),
        (clock_time(parse_time(None)), "\u2013"),
    ],
)  # fmt: skip
def test_words(written: str, words: str) -> None:
    """Numbers as people read them."""
    assert written == words


def test_names_at_the_ends_of_lines_neither_overlap_nor_leave_the_plot() -> None:
    """Three lines that end together at the bottom of the plot."""
    series = [Series(f"line {number}", [(0.0, 9.0), (1.0, 0.001 * number)], number) for number in range(3)]
    drawn = line_chart(series, [], label="x", written=str)
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)" class="name', drawn))
    assert all(later - earlier >= 13.9 for earlier, later in pairwise(heights))
    assert heights[-1] <= HEIGHT - BOTTOM + 4
