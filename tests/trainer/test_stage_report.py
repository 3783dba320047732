"""The report stage's page: what it says of hand-made stages, and what it makes of hostile or missing ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from trainrun_api.page.words import UNKNOWN
from trainrun_trainer.reporting import write_report
from trainrun_trainer.reporting.comparing import Measure, comparisons
from trainrun_trainer.reporting.records import read_stages

from tests.report.pages import Page
from tests.trainer import stage_folders as folders

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>&\u2028\ud800"


def report(root: Path, names: list[str], title: str = "Law for everyone") -> Page:
    write_report(root, names, title, root / "out")
    assert [path.name for path in (root / "out").iterdir()] == ["report.html"]
    return Page(root / "out" / "report.html")


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """Of the whole chain."""
    return report(tmp_path, folders.chain(tmp_path))


def test_first_paragraph_tells_better_and_worse(page: Page) -> None:
    """In words, with the numbers, by the names of the stages that made the models."""
    assert "law, beside its baseline, base. Better on 4 measures" in page.text
    assert "perplexity on law fell from 739.0 to 95.6 (-87 %)" in page.text
    assert "Worse on 1 measure: perplexity on general rose from 121.3 to 382.4 (3.2 times)." in page.text
    assert "The same within 1%: ROUGE-2 on terms, exact match on terms," in page.text
    assert "lower is better. All other measures are shares of 1: higher is better. What it took:" in page.text
    assert "40 training steps on 20,480 tokens; 1 min 20 s over all stages." in page.text
    assert page.text.index("beside its baseline") < page.text.index("Result")


@pytest.mark.parametrize(
    "title",
    ["Warnings", "Result", "Model by model", "While training", "What it cost", "Samples beside their references",
     "Where it comes from", "Configuration and files"],
)  # fmt: skip
def test_sections(page: Page, title: str) -> None:
    assert f"<h2>{title}</h2>" in page.source


def test_table_has_the_baseline_first(page: Page) -> None:
    """And a column per model and per other system; what was not measured is a dash."""
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", page.source)
    assert heads[:4] == ["measure", "baseline: base", "law", "hosted"]
    assert "perplexity, law 739.0 95.6 -87 % -" in page.text.replace(UNKNOWN, "-")
    assert "ROUGE-1, terms 0.000 0.167 +0.167 0.750 +0.750" in page.text
    assert "ROUGE-2, terms 0.000 0.000 same 0.000 same" in page.text


def test_warning_uses_the_names_of_the_page(page: Page) -> None:
    """The evaluation speaks of model and baseline; here they have names."""
    assert "law has lost on general: perplexity 382.4 is 3.15 times that of base, 121.3" in page.text


def test_curves_are_drawn_over_what_they_are_over(page: Page) -> None:
    """Two of the sweep, the baseline at t=0; one loss with two lines, two held-out sets."""
    assert page.source.count("<svg") == 5
    assert "law, t 0.25: 579" in page.source
    assert "law, t 0: 739" in page.source
    assert page.source.count("<polyline") == 2 + 2 + 4
    assert "t-0.5 0.5 419.0 186.3" in page.text


def test_cost_of_each_stage_and_the_sum(page: Page) -> None:
    """Samples per second are those of the median step: 8 rows in a quarter of a second; parameters are counted."""
    assert "law train 20 10,240 30 s 32.0 864" in page.text
    assert "before-and-after evaluate - - 12 s - -" in page.text.replace(UNKNOWN, "-")
    assert "sum 40 20,480 1 min 20 s" in page.text


def test_adapters_count_apart_from_their_base(tmp_path: Path) -> None:
    """Exact numbers, of the files' headers."""
    base = folders.train_stage(tmp_path, "base", 0, (7.0, 5.0))
    lora = folders.train_stage(tmp_path, "lora", 40, (6.0, 5.0))
    (lora / "export/model-00001-of-00001.safetensors").unlink()
    folders.tensors(lora / "export/adapter_model.safetensors", a=[8, 2], b=[2, 8])
    folders.write(lora / "export/adapter_config.json", {})
    folders.write(lora / "export/lineage.json", {"base": {"path": str(base / "export"), "hash": "x"}})
    assert "32 of 896 (3.6 %)" in report(tmp_path, ["base", "lora"]).text


def test_lineage_names_parents_by_hash(page: Page) -> None:
    assert "law train base hash-of-base law-input-ha law-state-di" in page.text
    assert 'title="hash-of-base-outputs"' in page.source


def test_samples_stand_beside_their_references(page: Page) -> None:
    """Three of four questions, each with all answers; an empty one is said to be empty."""
    assert "terms: the first 3 of 4" in page.text
    assert page.source.count("<article") == 3
    card = (
        "question 1 prompt What is term 0? reference A rule made by a parliament. baseline: base (nothing) law A law."
    )
    assert f"{card} hosted A statute." in page.text


def test_stages_with_one_baseline_share_a_table(tmp_path: Path) -> None:
    """0%, 1% and 5% beside each other; another baseline has another table."""
    folders.train_stage(tmp_path, "base", 0, (7.0, 5.0))
    names = ["base"]
    for share, law in (("cpt-0", 95.0), ("cpt-1", 96.0)):
        folders.train_stage(tmp_path, share, 40, (6.0, 5.0))
        folders.evaluate_stage(tmp_path, f"eval-{share}", 80, folders.evaluation(tmp_path, "base", share, law=law))
        names += [share, f"eval-{share}"]
    folders.evaluate_stage(tmp_path, "later", 90, folders.evaluation(tmp_path, "cpt-0", "cpt-1"))
    first, second = comparisons(read_stages(tmp_path.absolute(), [*names, "later"]), tmp_path.absolute())
    assert (first.baseline, first.models, second.baseline) == ("base", ["cpt-0", "cpt-1"], "cpt-0")
    assert first.values["perplexity, law"] == {"base": 739.0, "cpt-0": 95.0, "cpt-1": 96.0}


def test_perplexities_over_other_tokens_are_neither_better_nor_worse(tmp_path: Path) -> None:
    """The numbers stand there, without a change; all other measures are compared as ever."""
    found = folders.evaluation(tmp_path, "base", "law")
    found["columns"]["model"]["other_tokens"] = "'a' is 1, there 2; 1 token differs"
    folders.train_stage(tmp_path, "base", 0, (7.0, 5.0))
    folders.train_stage(tmp_path, "law", 40, (6.0, 5.0))
    folders.evaluate_stage(tmp_path, "measured", 80, found)
    page = report(tmp_path, ["base", "law", "measured"])
    assert "law, beside its baseline, base. Better on 3 measures: ROUGE-1 on terms" in page.text
    assert "Its perplexities are over other tokens than the baseline's, and are not compared." in page.text
    assert "perplexity, law 739.0 95.6 -" in page.text.replace(UNKNOWN, "-")
    assert "fell from" not in page.text and "Worse on" not in page.text


def test_models_from_elsewhere_have_their_folders_names(tmp_path: Path) -> None:
    """A stage of the run that is not on the page is known by its folder, too."""
    found = folders.evaluation(tmp_path, "base", "law")
    found["columns"]["model"]["path"] = "/models/llama-tuned/export"
    folders.evaluate_stage(tmp_path, "measured", 80, found)
    [only] = comparisons(read_stages(tmp_path.absolute(), ["measured"]), tmp_path.absolute())
    assert (only.baseline, only.models) == ("base", ["llama-tuned"])


def test_one_name_for_two_sets_makes_two_lines(tmp_path: Path) -> None:
    """Values that contradict each other are never mixed."""
    folders.train_stage(tmp_path, "base", 0, (7.0, 5.0))
    found = folders.evaluation(tmp_path, "base", "law")
    folders.evaluate_stage(tmp_path, "one", 80, found)
    found["perplexity"]["law"] = {"baseline": {"perplexity": 50.0}, "model": {"perplexity": 40.0}}
    folders.evaluate_stage(tmp_path, "two", 90, found)
    [only] = comparisons(read_stages(tmp_path.absolute(), ["base", "one", "two"]), tmp_path.absolute())
    assert only.values["perplexity, law"]["base"] == 739.0
    assert only.values["perplexity, law (two)"]["base"] == 50.0


@pytest.mark.parametrize(
    ("title", "before", "after", "verdict"),
    [
        ("perplexity, law", 100.0, 99.5, "same"),
        ("perplexity, law", 100.0, 98.0, "better"),
        ("perplexity, law", 100.0, 102.0, "worse"),
        ("accuracy, mail", 0.5, 0.504, "same"),
        ("accuracy, mail", 0.5, 0.51, "better"),
        ("accuracy, mail", 0.5, 0.4, "worse"),
        ("accuracy, mail", 0.5, float("nan"), None),
    ],
)
def test_verdicts(title: str, before: float, after: float, verdict: str | None) -> None:
    """Lower is better for perplexities only; noise is no news."""
    assert Measure(title, {"base": before, "new": after}).verdict("base", "new") == verdict


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """In samples, titles, warnings, configurations: nothing of them becomes an element."""
    folders.train_stage(tmp_path, "base", 0, (7.0, 5.0), config={"global_batch_rows": 8, "note": HOSTILE})
    found = folders.evaluation(tmp_path, "base", "law", answer=HOSTILE)
    found["samples"][0].update(prompt=HOSTILE, reference=HOSTILE)
    found["warnings"] = [HOSTILE]
    found["perplexity"][HOSTILE] = found["perplexity"]["law"]
    folders.evaluate_stage(tmp_path, "measured", 80, found)
    page = report(tmp_path, ["base", "measured", "<b>gone</b>"], title=HOSTILE)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "<b>gone" not in page.source
    assert "alert(1)" in page.text


def test_page_asks_nothing_of_the_network(page: Page) -> None:
    """No link, image, script or font; a policy forbids what might come."""
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "a"}
        assert not {"src", "href", "style"} & set(attributes)
    assert "url(" not in page.source and "@import" not in page.source
    assert "default-src 'none'" in page.source


def test_page_fits_a_phone_and_both_colour_schemes(page: Page) -> None:
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.elements
    for words in ("prefers-color-scheme: dark", "@media (max-width: 640px)", "@media print"):
        assert words in page.source


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """A stage that has not ended, one that was never there, no evaluation: the page is made all the same."""
    folders.record(tmp_path, "running", "train", (0, 1), state="running", ended_at=None, result=None)
    page = report(tmp_path, ["running", "absent"])
    assert "No stage evaluated a model beside a baseline: better or worse cannot be told." in page.text
    assert "stage running has not ended" in page.text
    assert "stage absent has no record" in page.text


def test_two_losses_of_one_step_are_a_warning(tmp_path: Path) -> None:
    """A restart that did not repeat itself."""
    store = folders.train_stage(tmp_path, "base", 0, (7.0, 5.0))
    folders.write(store / "claims/2.json", {"k": 2, "run_uid": "u", "parent": {"step": 18, "claim": 1}})
    line = {"step": 19, "loss": 1.0, "loss_hex": (1.0).hex(), "claim": 2, "tokens": 9728}
    (store / "metrics/c2.jsonl").write_text(json.dumps(line) + "\n")
    assert "1 step ran twice, after a restart, with two different losses" in report(tmp_path, ["base"]).text


def test_a_loss_that_is_no_number_is_not_drawn(tmp_path: Path) -> None:
    """One point less, and no broken drawing."""
    store = folders.train_stage(tmp_path, "base", 0, (7.0, 5.0))
    path = store / "metrics/c1.jsonl"
    path.write_text(path.read_text().replace('"loss": 6.9,', '"loss": NaN,'))
    page = report(tmp_path, ["base"])
    assert "NaN" in path.read_text() and "nan" not in page.source
