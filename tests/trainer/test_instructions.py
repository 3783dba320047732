"""Instruction tuning rows: golden prompts, loss on the response only, masked by length, packed full."""

from __future__ import annotations

import json
import random
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainrun_api.data_config import DataConfig
from trainrun_trainer.corpus.instructions import instruction_prompt
from trainrun_trainer.errors import ConfigError, DataError
from trainrun_trainer.examples import best_fit_decreasing
from trainrun_trainer.loss import IGNORED
from trainrun_trainer.packing import PADDING, TRAIN
from trainrun_trainer.prepare import prepare
from trainrun_trainer.prepared import DataManifest
from trainrun_trainer.rows import make_slot, open_rows
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.tokenizer import load_tokenizer

CPU = torch.device("cpu")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_CONTEXT = """\
### Instruction
List the colours.

### Context
The flag is red and blue.

### Response
"""
WITHOUT_CONTEXT = """\
### Instruction
Name a colour.

### Response
"""


def examples() -> list[dict[str, str]]:
    """Real text: the name of a topic of Python's documentation asks for its beginning; each second has a context."""
    found = []
    for i, name in enumerate(sorted(topics)[:30]):
        row = {
            "instruction": f"What does Python's documentation say of {name}?",
            "response": topics[name][:200].strip(),
        }
        found.append({**row, "context": topics[name][200:260]} if i % 2 else row)
    return found


def config(path: Path, row_tokens: int = 256, tokenizer: Any = None, **instruct: Any) -> DataConfig:
    """One set of instructions."""
    return DataConfig.model_validate(
        {
            "sources": {"a": {"path": str(path), "instruct": instruct}}, "tokenizer": tokenizer or {"vocab_size": 400},
            "row_tokens": row_tokens, "held_out_share": 0,
        }
    )  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """As one .jsonl file."""
    folder.mkdir(exist_ok=True)
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("instruction", "context", "golden"),
    [
        ("List the colours.", "The flag is red and blue.", WITH_CONTEXT),
        ("Name a colour.", None, WITHOUT_CONTEXT),
        ("Name a colour.", "  ", WITHOUT_CONTEXT),
    ],
    ids=["with context", "no context", "blank context"],
)
def test_the_prompt_is_golden(instruction: str, context: str | None, golden: str) -> None:
    """S3-03: runs that exist were trained on exactly these words."""
    assert instruction_prompt(instruction, context) == golden


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> DataManifest:
    """The examples, packed."""
    root = tmp_path_factory.mktemp("sft")
    return prepare(config(write(root / "a", examples())), LocalDirectory(root / "store"))


def predicted(data: DataManifest) -> list[list[int]]:
    """What the model is asked to predict: one list for each unbroken run of targets, over all rows."""
    rows = open_rows(data, "a", TRAIN)
    runs: list[list[int]] = []
    for row in range(rows.num_rows):
        targets = make_slot([(rows, row)], CPU).targets[0].tolist()
        assert sum(t != IGNORED for t in targets) == rows.num_targets(row)
        for before, now in zip([IGNORED, *targets], targets, strict=False):
            if now != IGNORED:
                if before == IGNORED:
                    runs.append([])
                runs[-1].append(now)
    return runs


def test_loss_is_on_the_responses_only(prepared: DataManifest) -> None:
    """S2-35: every response and its end, nothing of a prompt, each exactly once."""
    tokenizer = load_tokenizer(prepared.folder / "tokenizer")
    wanted = [[*tokenizer(row["response"])["input_ids"], tokenizer.eos_token_id] for row in examples()]
    assert sorted(predicted(prepared)) == sorted(wanted)


def test_a_batch_knows_the_places_of_its_targets(prepared: DataManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of instruction rows; of text nearly all places have one, and none is picked."""
    rows = open_rows(prepared, "a", TRAIN)
    slot = make_slot([(rows, row) for row in range(rows.num_rows)], CPU)
    assert slot.learned is not None
    assert torch.equal(slot.learned, (slot.targets.flatten() != IGNORED).nonzero()[:, 0])
    monkeypatch.setattr(rows, "learned", lambda row: None)  # as rows of text
    assert make_slot([(rows, 0)], CPU).learned is None


def test_the_end_is_learned_though_padding_is_the_same_token(prepared: DataManifest) -> None:
    """S3-04: pad = eos. Each example's true end is a target; no padding is, nor can anything see it."""
    rows = open_rows(prepared, "a", TRAIN)
    end = load_tokenizer(prepared.folder / "tokenizer").eos_token_id
    ends = padding = 0
    for row in range(rows.num_rows):
        slot = make_slot([(rows, row)], CPU)
        ends += int((slot.targets == end).sum())
        for document, start, _ in rows.segments(row).tolist():
            if document == PADDING:
                padding += rows.row_tokens - start
                assert (slot.input_ids[0, start:] == end).all()
                assert (slot.targets[0, start - 1 :] == IGNORED).all()
                assert slot.position_ids[0, start] == 0
    assert ends == len(examples())
    assert padding == prepared.split("a", TRAIN)["padding_tokens"] > 0


def chat_folder(prepared: DataManifest, folder: Path, template: str | None) -> dict[str, str]:
    """A tokenizer with a chat template."""
    tokenizer = load_tokenizer(prepared.folder / "tokenizer")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return {"path": str(folder)}


CONVERSATION = [
    {"role": "system", "content": "Be short."}, {"role": "user", "content": "A colour?"},
    {"role": "assistant", "content": "Red."}, {"role": "user", "content": "Another?"},
    {"role": "assistant", "content": "Blue."}, {"role": "user", "content": "Thanks."},
]  # fmt: skip


def test_conversations_by_the_chat_template(prepared: DataManifest, tmp_path: Path) -> None:
    """Every assistant's turn with what ends it is learned; what follows the last one is left out."""
    tokenizer = chat_folder(prepared, tmp_path / "tokenizer", CHAT)
    path = write(tmp_path / "a", [{"messages": CONVERSATION}])
    data = prepare(config(path, tokenizer=tokenizer, messages_field="messages"), LocalDirectory(tmp_path / "store"))
    texts = [load_tokenizer(tokenizer["path"]).decode(run) for run in predicted(data)]
    assert texts == ["Red.<|im_end|>\n", "Blue.<|im_end|>\n"]


@pytest.mark.parametrize(
    ("template", "error", "words"),
    [
        (None, ConfigError, "has no chat template"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}", DataError, "only appends"),
    ],
    ids=["no template", "rewrites"],
)
def test_chat_templates_that_cannot_be_used(
    prepared: DataManifest, tmp_path: Path, template: str | None, error: type[Exception], words: str
) -> None:
    """One sentence, before training."""
    tokenizer = chat_folder(prepared, tmp_path / "tokenizer", template)
    path = write(tmp_path / "a", [{"messages": CONVERSATION}])
    with pytest.raises(error, match=words):
        prepare(config(path, tokenizer=tokenizer, messages_field="messages"), LocalDirectory(tmp_path / "store"))


GOOD = {"instruction": "Say it.", "response": "It."}
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no response": ({**GOOD, "response": " "}, {}, "file x.jsonl, line 2 has no response"),
    "no response column": ({"instruction": "Say"}, {}, "line 2 has no string field 'response'; set .*response_field"),
    "wrong prompt column": (GOOD, {"prompt_field": "ask"}, "line 1 has no string field 'ask'; set .*prompt_field"),
    "context is a number": ({**GOOD, "context": 3}, {}, "line 2: 'context' is int"),
    "too long": ({**GOOD, "response": "word " * 99}, {}, "line 2 has .* tokens, but data.row_tokens=64; .*: drop"),
    "no messages": ({"m": "hello"}, {"messages_field": "m"}, "line 1: 'm' is no list of messages"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_refused_by_line(case: str, tmp_path: Path, prepared: DataManifest) -> None:
    """Exit 21, one sentence with file and line."""
    row, instruct, words = BAD[case]
    path = write(tmp_path / "a", [GOOD, row])
    tokenizer = chat_folder(prepared, tmp_path / "tokenizer", CHAT)
    with pytest.raises(DataError, match=words) as refused:
        prepare(config(path, 64, tokenizer, **instruct), LocalDirectory(tmp_path / "store"))
    assert refused.value.exit_code == 21 and str(path) in str(refused.value)


def test_too_long_rows_may_be_dropped_and_are_counted(tmp_path: Path) -> None:
    """On request only."""
    path = write(tmp_path / "a", [GOOD, {**GOOD, "response": "word " * 99}, {**GOOD, "response": "Other."}])
    data = prepare(config(path, 64, too_long="drop"), LocalDirectory(tmp_path / "store"))
    assert data.facts["sources"]["a"]["removed"] == {"too_long": 1}
    assert data.split("a", TRAIN)["documents"] == 2


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 90))
def test_every_example_is_in_one_row_and_no_row_overflows(lengths: list[int], capacity: int) -> None:
    """And no two rows would fit into one, of which best fit leaves one at most."""
    rows = best_fit_decreasing(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < total <= capacity for total in sums)
    assert sum(total <= capacity // 2 for total in sums) <= 1


def test_rows_are_full() -> None:
    """At least 97% on 1,000 examples, log-normal lengths (median 180, sigma 0.8) cut at the row's 2,048 tokens."""
    draws = random.Random(5)
    lengths = [max(8, min(2048, round(draws.lognormvariate(np.log(180), 0.8)))) for _ in range(1000)]
    rows = best_fit_decreasing(lengths, 2048)
    assert sum(lengths) / (len(rows) * 2048) >= 0.97
