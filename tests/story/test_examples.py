"""What examples 10 to 16 show, as bands that held over three seeds (docs/training.md)."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainrun_trainer.reporting.records import read_stages
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.story.conftest import (
    EXAMPLES,
    FIRST,
    LINES,
    MORE_SEEDS,
    ROOT,
    SEED,
    SHARES,
    SHARES_OF_MORE,
    Played,
)

pytestmark = pytest.mark.timeout(3600)


def spec(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / name / "run.yaml").read_text())["spec"]
    return found


def test_examples_share_one_base() -> None:
    """All but the stages is the same, so that the base is the same work in each."""
    first = spec(EXAMPLES[0])
    stages = first.pop("stages")
    for name in EXAMPLES[1:]:
        other = spec(name)
        assert other.pop("stages")[0] == stages[0]
        assert other == first, name


def test_base_is_trained_once(played: Played) -> None:
    """Seven examples; each stage that several of them have was done by the first."""
    claims = played.claims()
    assert ("base", 1) in claims
    assert [(stage, number) for stage, number in claims if number != 1] == []


def test_every_example_is_played() -> None:
    """Whoever adds one has to say which it builds on."""
    assert sorted([*FIRST, *itertools.chain(*LINES)]) == [name[:2] for name in EXAMPLES]


def test_base_learnt_general_text(played: Played) -> None:
    """Against the untrained model of its own step 0."""
    assert played.perplexity("judged-10", "general", "baseline") > 1500


def test_every_seeds_base_learnt_general_text(of_seed: Played) -> None:
    """And nothing of the domain, which is in the evaluation only."""
    assert of_seed.perplexity("judged-11-0", "general", "baseline") < 130
    assert of_seed.perplexity("judged-11-0", "domain", "baseline") > 1000


def test_domain_falls_while_general_rises(of_seed: Played) -> None:
    """S0-04, S0-03: without general text the domain's perplexity falls far, and the general one is a multiple."""
    before = {source: of_seed.perplexity("judged-11-0", source, "baseline") for source in ("domain", "general")}
    assert of_seed.perplexity("judged-11-0", "domain") < before["domain"] / 8
    assert of_seed.perplexity("judged-11-0", "general") > 2 * before["general"]


@pytest.mark.parametrize(
    ("seed", "share"),
    [*itertools.product([SEED], SHARES), *itertools.product(MORE_SEEDS, SHARES_OF_MORE)],
)
def test_general_rises_and_then_levels(by_seed: dict[int, Played], seed: int, share: int) -> None:
    """S0-04: by half or more in the first hundred steps; in the last hundred, if at all, by a fifth of that."""
    (stage,) = read_stages(by_seed[seed].store(f"cpt-{share}"), [f"cpt-{share}"])
    curve = dict(stage.held_out["general"])
    first, last = math.log(curve[100] / curve[0]), math.log(curve[300] / curve[200])
    assert first > math.log(1.5) and last < first / 5


def test_one_percent_keeps_general_ability(of_seed: Played) -> None:
    """S1-05: 1% general text keeps most of it at the domain's perplexity."""
    domain, general = (
        {share: of_seed.perplexity(f"judged-11-{share}", source) for share in SHARES_OF_MORE}
        for source in ("domain", "general")
    )
    assert domain[1] < 1.05 * domain[0]
    assert general[1] < 0.6 * general[0]


def test_five_percent_keep_more(played: Played) -> None:
    """Than one, at nearly the domain's perplexity."""
    assert played.perplexity("judged-11-5", "domain") < 1.10 * played.perplexity("judged-11-0", "domain")
    assert played.perplexity("judged-11-5", "general") < played.perplexity("judged-11-1", "general")


def test_a_loss_of_general_ability_is_a_warning(played: Played) -> None:
    """Of the report's first lines."""
    assert "cpt-0 has lost on general" in played.page("page-11")


def test_tuning_answers_where_the_base_does_not(played: Played) -> None:
    """S0-05, S0-12: answers come nearer to the references; perplexities are looked at after tuning, too."""
    found = played.evaluation("judged-12-4")
    means = {
        column: statistics.mean(of[column]["rougeL"] for of in found["questions"].values())
        for column in ("baseline", "model")
    }
    assert means["model"] > 2 * means["baseline"]
    assert found["questions"]["testament"]["baseline"]["exact_match"] == 0
    assert found["questions"]["testament"]["model"]["exact_match"] > 0.2
    assert set(found["perplexity"]) == {"domain", "general"}


def test_number_of_sets_against_rouge_is_drawn(played: Played) -> None:
    """S0-05: none, one, two and four sets, a line for each set of questions: their spread. No direction is asserted."""
    page = played.page("page-12")
    for name in ("sets-1", "sets-2", "sets-4"):
        assert page.count(name) > 3
    assert "<h2>Instruction sets against ROUGE</h2>" in page
    for line in ("field", "region", "testament", "ending", "mean"):
        for sets in (0, 1, 2, 4):
            assert f"{line}, instruction sets {sets}: " in page


def test_adapters_are_few(played: Played) -> None:
    """S3-16 in small: exact numbers of trained parameters, and samples per second beside them. That they are faster is
    counted by tests/trainer/test_adapters.py and timed by bench/lora_speed.py."""
    full, lora = read_stages(played.store("full"), ["full", "lora"])
    per_layer = 2 * 8 * (128 + 128)
    assert lora.trained_parameters == 4 * per_layer
    weights = AutoModelForCausalLM.from_pretrained(played.result("full"), local_files_only=True).num_parameters()
    assert full.trained_parameters == weights and lora.all_parameters == weights + 4 * per_layer
    assert lora.rows_per_second is not None and full.rows_per_second is not None
    assert f"{4 * per_layer:,} of" in played.page("page-13")


def test_merge_over_t_trades_one_for_the_other(played: Played) -> None:
    """S1-08: along t the domain's perplexity falls and the general one rises."""
    lines = json.loads((played.store("merged") / played.record("merged")["folder"] / "curve.json").read_text())["lines"]
    assert [line["name"] for line in lines] == ["baseline", "t-0.25", "t-0.5", "t-0.75", "t-1"]
    domain = [line["perplexity, domain"] for line in lines]
    general = [line["perplexity, general"] for line in lines]
    assert domain == sorted(domain, reverse=True)
    assert general[-1] == max(general)


def test_letters_are_sorted_better_than_by_the_base(played: Played) -> None:
    """S0-08, S0-09: real labelled text, the baseline beside it."""
    found = played.evaluation("judged-15")["labels"]["mail"]
    assert found["model"]["accuracy"] > max(0.55, found["baseline"]["accuracy"] + 0.1)
    assert {"precision", "recall", "f1"} <= set(found["model"]["labels"]["bad"])


def test_export_generates_in_plain_transformers(played: Played) -> None:
    """S3-12, S3-14: the consolidated folder is bit-equal to the export, and its answers are the evaluation's."""
    folder = played.result("exported")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    exported = AutoModelForCausalLM.from_pretrained(played.result("sets-4"), local_files_only=True).state_dict()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    samples = [s for s in played.evaluation("judged-16")["samples"] if s["column"] == "model" and s["set"] == "field"]
    for sample in samples[:4]:
        asked = tokenizer(sample["prompt"], return_tensors="pt", add_special_tokens=False)
        made = model.generate(**asked, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        told = tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert told == sample["output"]
    script = ROOT / "examples" / "16-export" / "generate.py"
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n    ") == 4


@pytest.mark.parametrize("number", [name[:2] for name in EXAMPLES])
def test_each_ends_in_a_page_for_a_manager(played: Played, number: str, tmp_path: Path) -> None:
    """One file, with the baseline first, cost and lineage; nothing is fetched."""
    page = played.page(f"page-{number}")
    for words in ("<h2>Result</h2>", "<h2>What it cost</h2>", "<h2>Where it comes from</h2>", "baseline: "):
        assert words in page
    assert "<script" not in page and "src=" not in page
    losses = [len(stage.losses) for stage in read_stages(played.store("base"), ["base"])]
    assert statistics.mean(losses) == spec(EXAMPLES[0])["config"]["total_steps"]
