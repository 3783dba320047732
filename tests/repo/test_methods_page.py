"""docs/methods.md says what the code does: its table is the table of families, its configuration is a configuration."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from trainrun_api.train_config import TrainConfig
from trainrun_operator.sweep.variants import make_variants, parse_axis
from trainrun_trainer.families import FAMILIES, by_documents, by_mask, by_mask_and_positions

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
WORDS = {
    by_documents: "restarted positions",
    by_mask: "float mask",
    by_mask_and_positions: "float mask and restarted positions",
}


def test_the_families() -> None:
    rows = {
        name: (isolation, tuple(re.findall(r"`(\w+)`", targets)), attention, dropout == "yes")
        for name, isolation, targets, attention, dropout in re.findall(
            r"^\| `(?!model_type)(\w+)` \| (.+?) \| (.+?) \| (\w+) \| (.+?) \|$", PAGE, re.MULTILINE
        )
    }
    assert rows == {
        name: (WORDS[family.isolation], family.lora_targets, family.attention, family.has_dropout)
        for name, family in FAMILIES.items()
    }


def test_the_configuration() -> None:
    block, chained = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    spec = yaml.safe_load(chained)["spec"]
    assert (spec["resume"]["from"], spec["config"]["model"], spec["config"]["data"]["tokenizer"]) == ("Run", {}, {})
    config = TrainConfig.model_validate(yaml.safe_load(block))
    assert config.lora is not None and config.lora.r == 16
    assert config.activation_checkpointing == "full"


def test_the_number_of_instruction_sets_is_a_sweep() -> None:
    """S0-05: one run for each number of sets."""
    [words] = re.findall(r"--over '(.*?)'", PAGE)
    sources = {name: {"path": f"/{name}", "instruct": {}} for name in ("dolly", "law", "medicine")}
    manifest = {
        "metadata": {"name": "sets"},
        "spec": {"checkpoint": {"path": "/c"}, "config": {"data": {"sources": sources}}},
    }
    runs = make_variants(manifest, [parse_axis(words)])
    mixes = [run.manifest["spec"]["config"]["data"]["mix"] for run in runs]
    assert [len(mix) for mix in mixes] == [1, 2, 3]
    assert all(mix.keys() <= sources.keys() for mix in mixes)
