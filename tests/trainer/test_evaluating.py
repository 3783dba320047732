"""Evaluation of model folders: the numbers against independent ones, the baseline beside them, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
import yaml
from trainrun_api.data_config import TokenizerConfig
from trainrun_api.stage_config import Labels, Questions, Tasks, TextSet
from trainrun_trainer.corpus.instructions import instruction_prompt
from trainrun_trainer.errors import ConfigError, DataError
from trainrun_trainer.evaluating import grading
from trainrun_trainer.evaluating.__main__ import main
from trainrun_trainer.evaluating.classification import classify, metrics
from trainrun_trainer.evaluating.perplexity import perplexity
from trainrun_trainer.evaluating.questions import Question, compare, generate, read_questions
from trainrun_trainer.evaluating.run import run
from trainrun_trainer.evaluating.scoring import Asked, Loaded
from trainrun_trainer.settings import parse
from trainrun_trainer.tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.conftest import chapters
from tests.trainer.models import VOCAB, save, tiny, tokenizer
from tests.trainer.runs import Site

LABELS = {"scripture": " holy", "manual": " code"}
PROMPT = "{text}\n\nKind:"
NUM_TEXTS = 24
ASKED_TOPICS = ("assert", "break", "continue", "del")


def labelled() -> list[dict[str, str]]:
    """Beginnings of chapters and of pages of Python's documentation, in turn."""
    pages = [topics[name] for name in sorted(topics)]
    pairs = zip(chapters(), pages, range(NUM_TEXTS // 2), strict=False)
    texts = [({"text": c[40:160], "label": "scripture"}, {"text": p[60:180], "label": "manual"}) for c, p, _ in pairs]
    return [one for pair in texts for one in pair]


def asked() -> list[dict[str, str]]:
    """What the first words of a page are."""
    return [
        {"instruction": f"How does the page on {name} begin?", "response": " ".join(topics[name].split()[:3])}
        for name in ASKED_TOPICS
    ]


def lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tuned(words: Any, rows: list[tuple[str, str]]) -> Any:
    """A tiny model that has learned these responses by heart, in plain torch."""
    model = tiny(0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    examples = []
    for prompt, response in rows:
        start = words(prompt)["input_ids"]
        ids = [*start, *words(response)["input_ids"], words.eos_token_id]
        examples.append((torch.tensor([ids]), torch.tensor([[-100] * len(start) + ids[len(start) :]])))
    for _ in range(20):
        for ids, targets in examples:
            model(input_ids=ids, labels=targets, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """baseline/, model/ (tuned from it), texts, questions, labels, another system's outputs, and tasks.yaml."""
    root = tmp_path_factory.mktemp("evaluating")
    torch.set_num_threads(1)
    words = tokenizer()
    save(tiny(0), words, root / "baseline")
    rows = [(PROMPT.replace("{text}", one["text"]), LABELS[one["label"]]) for one in labelled()]
    rows += 3 * [(instruction_prompt(one["instruction"], None), one["response"]) for one in asked()]
    save(tuned(words, rows), words, root / "model")
    lines(root / "labels.jsonl", labelled())
    lines(root / "questions.jsonl", asked())
    lines(root / "hosted.jsonl", [{"output": one["response"].upper() + " and more"} for one in asked()])
    lines(root / "general.jsonl", [{"text": topics[name][:400]} for name in sorted(topics)[:6]])
    tasks = {
        "perplexity": {"general": {"path": str(root / "general.jsonl"), "max_ratio": 1.05}},
        "questions": {
            "pages": {
                "path": str(root / "questions.jsonl"), "max_new_tokens": 24,
                "outputs": {"hosted": str(root / "hosted.jsonl")},
            }
        },
        "labels": {
            "kinds": {
                "path": str(root / "labels.jsonl"), "labels": LABELS, "prompt": PROMPT, "positive": "scripture",
            }
        },
    }  # fmt: skip
    (root / "tasks.yaml").write_text(yaml.safe_dump(tasks))
    return root


@pytest.fixture(scope="module")
def evaluated(place: Path) -> dict[str, Any]:
    """The evaluation of the tuned model."""
    config = parse(Tasks, yaml.safe_load((place / "tasks.yaml").read_text()), "")
    inputs = {"model": str(place / "model"), "baseline": str(place / "baseline"), "out": str(place / "out")}
    return run(config, inputs)


def opened(folder: Path, **tasks: Any) -> Loaded:
    return Loaded.open(folder, Tasks(**tasks))


def test_perplexity_is_that_of_plain_transformers(place: Path, evaluated: dict[str, Any]) -> None:
    """Document by document, every token but the first, the end of text included."""
    model, words = AutoModelForCausalLM.from_pretrained(place / "model"), AutoTokenizer.from_pretrained(place / "model")
    total, tokens = 0.0, 0
    for line in (place / "general.jsonl").read_text().splitlines():
        ids = torch.tensor([[*words(json.loads(line)["text"])["input_ids"], words.eos_token_id]])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    found = evaluated["perplexity"]["general"]["model"]
    assert found["tokens"] == tokens
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_batches_and_padding_change_nothing(place: Path) -> None:
    """One at a time or all together."""
    task = TextSet(path=str(place / "general.jsonl"))
    alone, together = (perplexity(opened(place / "model", batch_tokens=n), task, "x") for n in (1, 100_000))
    assert alone["loss"] == pytest.approx(together["loss"], rel=1e-6)
    assert alone["tokens"] == together["tokens"] > 600


def test_long_documents_are_read_in_pieces(place: Path, tmp_path: Path) -> None:
    """No longer than the model's context, and no token twice."""
    save(tiny(0, max_position_embeddings=64), tokenizer(), tmp_path / "short")
    task = TextSet(path=str(place / "general.jsonl"))
    whole, cut = (perplexity(opened(m), task, "x") for m in (place / "baseline", tmp_path / "short"))
    assert whole["pieces"] == 6 < cut["pieces"]
    assert cut["tokens"] + cut["pieces"] == whole["tokens"] + whole["pieces"]


def test_the_export_has_the_perplexity_that_training_measured(undisturbed: Callable[[int], Site]) -> None:
    """Held-out rows of the run's own data: packed rows by position there, each document by itself here."""
    site = undisturbed(1)
    measured = [line for line in site.metrics()[0] if line.get("eval")][-1]["eval"]
    [data] = (site.store / "data").iterdir()
    for source, wanted in measured.items():
        task = TextSet(prepared=str(data), source=source, max_documents=5)
        found = perplexity(opened(site.store / "export"), task, "x")
        assert found["tokens"] == wanted["tokens"]
        assert found["perplexity"] == pytest.approx(wanted["perplexity"], rel=1e-5)


def test_the_baseline_stands_beside_every_measure(place: Path, evaluated: dict[str, Any]) -> None:
    """Tuning by heart is seen in labels and answers, and the loss of general ability is told."""
    labels, questions = evaluated["labels"]["kinds"], evaluated["questions"]["pages"]
    assert labels["model"]["accuracy"] >= 0.9 > 0.6 >= labels["baseline"]["accuracy"]
    assert questions["model"]["exact_match"] >= 0.75 and questions["baseline"]["exact_match"] == 0
    assert questions["model"]["rougeL"] > questions["hosted"]["rougeL"] > questions["baseline"]["rougeL"]
    [warning] = evaluated["warnings"]
    assert warning.startswith("model has lost on general: perplexity ") and warning.endswith("and 1.05 is allowed")
    page = (place / "out" / "evaluation.md").read_text()
    assert "| measure | baseline | model | hosted |" in page and warning in page
    for title in ("perplexity, general", "ROUGE-L, pages", "exact match, pages", "accuracy, kinds", "recall, kinds"):
        assert f"| {title} | " in page
    assert json.loads((place / "out" / "evaluation.json").read_text()) == evaluated
    assert evaluated["columns"]["model"]["files"].keys() == {"config.json", "model.safetensors"}


def of_other_tokens(root: Path) -> Path:
    """A model with as many tokens as the others have, of Python's documentation."""
    words = make_tokenizer(TokenizerConfig(vocab_size=VOCAB), (topics[name] for name in sorted(topics)[:8]))
    return save(tiny(0), words, root)


def test_perplexities_over_other_tokens_are_not_compared(place: Path, tmp_path: Path) -> None:
    """Of a text cut into fewer tokens each is harder to tell: the number says nothing beside the other one."""
    tasks = parse(Tasks, {"perplexity": {"general": {"path": str(place / "general.jsonl"), "max_ratio": 1e-9}}}, "")
    inputs = {"model": str(of_other_tokens(tmp_path / "m")), "baseline": str(place / "baseline"), "out": str(tmp_path)}
    found = run(tasks, inputs)
    assert found["columns"]["model"]["other_tokens"].endswith("tokens differ")
    assert "other_tokens" not in found["columns"]["baseline"]
    [warning] = [warning for warning in found["warnings"] if not warning.startswith("baseline")]
    assert warning.startswith("model has another tokenizer than that of baseline, so that their perplexities")
    page = (tmp_path / "evaluation.md").read_text()
    assert warning in page and re.search(r"perplexity, general \| [\d.]+ \| [\d.]+ \(other tokens\) \|", page)


def test_added_tokens_do_not_keep_models_apart(place: Path, tmp_path: Path) -> None:
    """A token for padding cuts no text otherwise: what is lost is told as ever."""
    words = AutoTokenizer.from_pretrained(place / "model")
    words.add_special_tokens({"pad_token": "<pad>"})
    save(tiny(1, vocab_size=VOCAB + 1), words, tmp_path / "padded")
    tasks = parse(Tasks, {"perplexity": {"general": {"path": str(place / "general.jsonl"), "max_ratio": 1e-9}}}, "")
    found = run(tasks, {"model": str(tmp_path / "padded"), "baseline": str(place / "baseline"), "out": str(tmp_path)})
    assert "other_tokens" not in found["columns"]["model"]
    assert found["warnings"][-1].startswith("model has lost on general: ")
    assert "(other tokens)" not in (tmp_path / "evaluation.md").read_text()


def test_rows_of_other_tokens_are_refused(undisturbed: Callable[[int], Site], tmp_path: Path) -> None:
    """Their numbers mean nothing to the model."""
    [data] = (undisturbed(1).store / "data").iterdir()
    task = TextSet(prepared=str(data), source="domain")
    with pytest.raises(ConfigError, match=r"^x\.prepared=.*: its tokenizer is not the model's \('.*differ\); give the"):
        perplexity(opened(of_other_tokens(tmp_path)), task, "x")


def test_samples_show_prompt_reference_and_every_answer(place: Path, evaluated: dict[str, Any]) -> None:
    """Fixed prompts, as in training."""
    samples = [json.loads(line) for line in (place / "out" / "samples.jsonl").read_text().splitlines()]
    assert samples == evaluated["samples"]
    of_first = {s["column"]: s for s in samples if s["number"] == 0}
    assert of_first.keys() == {"baseline", "hosted", "model"}
    assert of_first["model"]["prompt"] == "### Instruction\nHow does the page on assert begin?\n\n### Response\n"
    assert of_first["hosted"]["output"] == of_first["model"]["reference"].upper() + " and more"


def test_answers_depend_on_seed_and_place_only(place: Path) -> None:
    """The same seed says the same, also when other questions come before; another seed something else."""
    loaded = opened(place / "baseline")
    task = Questions(path=str(place / "questions.jsonl"), temperature=1.0, max_new_tokens=12)
    questions = read_questions(loaded, task, "x")
    first = generate(loaded, questions, task, "x")
    assert generate(loaded, questions[2:], task, "x") == first[2:]
    assert generate(loaded, questions, task.model_copy(update={"seed": 1}), "x") != first
    assert len(set(first)) == len(first)


def test_rouge_and_exact_match_by_hand() -> None:
    """5 of 6 and 5 words in common; 3 of 5 and 4 pairs, stemmed; case and white space do not count."""
    questions = [Question(0, "", "the cat sat on the mat"), Question(1, "", "Two  words")]
    found = compare(questions, ["the cats sat on mats", "two words\n"])
    assert found["rouge1"] == pytest.approx((10 / 11 + 1) / 2)
    assert found["rouge2"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["rougeL"] == pytest.approx((10 / 11 + 1) / 2)
    assert found["exact_match"] == 0.5


def test_precision_and_recall_by_hand() -> None:
    """Two of three told are right, two of four are found; a label that is never told is 0, not an error."""
    truths = ["a", "a", "a", "a", "b", "c"]
    answers = ["a", "a", "b", "b", "a", "b"]
    found = metrics(["a", "b", "c"], truths, answers)
    assert found["accuracy"] == pytest.approx(2 / 6)
    assert found["labels"]["a"] == {
        "precision": pytest.approx(2 / 3), "recall": 0.5, "f1": pytest.approx(4 / 7), "texts": 4, "answers": 3,
    }  # fmt: skip
    assert found["labels"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "texts": 1, "answers": 0}
    assert found["macro"]["recall"] == pytest.approx(0.5 / 3)


def test_a_label_is_what_plain_transformers_finds_likelier(place: Path) -> None:
    """Sum of the logarithms of all tokens of the label's words."""
    loaded = opened(place / "baseline")
    task = Labels(path=str(place / "labels.jsonl"), labels=LABELS, prompt=PROMPT)
    prompt = loaded.encode(PROMPT.replace("{text}", labelled()[0]["text"]))
    sums = []
    for words in LABELS.values():
        ids = loaded.encode(words)
        with torch.no_grad():
            logs = loaded.model(input_ids=torch.tensor([[*prompt, *ids]])).logits.log_softmax(-1)[0]
        sums.append(sum(float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(ids)))
        [answer] = loaded.score([Asked([*prompt, *ids], [(len(prompt), len(prompt) + len(ids))])])
        assert answer.log_probability == pytest.approx(sums[-1], rel=1e-5) and answer.num_tokens == len(ids)
    found = classify(loaded, task.model_copy(update={"max_texts": 1}), "x")
    told = max(range(2), key=lambda i: sums[i])
    assert [of["answers"] for of in found["labels"].values()] == [int(told == 0), int(told == 1)]
    cut = classify(loaded, task.model_copy(update={"max_text_tokens": 10}), "x")
    assert cut["cut"] == NUM_TEXTS


def graded(place: Path, folder: Path, grades: dict[str, tuple[str, str]]) -> Path:
    """A copy of the sheet, filled in by column."""
    key = json.loads((place / "out" / "grading-key.json").read_text())
    (folder / "grading-key.json").write_text(json.dumps(key))
    with open(place / "out" / "grading.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["grade"], row["made_up"] = grades.get(key[row["id"]]["column"], ("", ""))
    with open(folder / "anna.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "anna.csv"


def test_people_grade_without_knowing_whom(
    place: Path, evaluated: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sheet names no system; the summary finds it again by the key."""
    sheet = (place / "out" / "grading.csv").read_text()
    assert not any(word in sheet for word in ("baseline", "hosted", "model"))
    assert sheet.startswith("id,prompt,reference,output,grade,made_up")
    filled = graded(place, tmp_path, {"model": ("5", "no"), "hosted": ("2", "YES")})
    found = grading.summary([filled])
    assert found["model"] == {
        "graded": 4, "mean": 5, "grades": {"1": 0, "2": 0, "3": 0, "4": 0, "5": 4}, "made_up_share": 0,
    }  # fmt: skip
    assert (found["hosted"]["mean"], found["hosted"]["made_up_share"]) == (2, 1)
    assert found["baseline"]["mean"] is None
    assert len(evaluated["samples"]) == 12
    grading.main([str(filled), str(filled)])
    assert "| model | 8 | 5.00 | 0% |\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("grade", "words"),
    [
        pytest.param(("6", ""), "answer .*: grade='6', expected a whole number from 1 to 5", id="grade"),
        pytest.param(("3", "maybe"), "made_up='maybe', expected yes, no or nothing", id="flag"),
    ],
)
@pytest.mark.usefixtures("evaluated")
def test_wrong_grades_are_named(place: Path, tmp_path: Path, grade: tuple[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        grading.summary([graded(place, tmp_path, {"model": grade})])


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "names nothing to measure"),
    "no set": ({"perplexity": {"general": {}}}, "perplexity.general: exactly one of path and prepared"),
    "no file": ({"perplexity": {"general": {"path": "/nowhere"}}}, "perplexity.general.path=/nowhere: no such file"),
    "no field": (
        {"perplexity": {"general": {"path": "{place}/questions.jsonl"}}},
        "perplexity.general: file questions.jsonl, line 1 has no string field 'text'",
    ),
    "label": (
        {"labels": {"k": {"path": "{place}/labels.jsonl", "labels": {"scripture": " a", "other": " b"}}}},
        "line 2 has label 'manual', expected one of scripture, other",
    ),
    "prompt": ({"labels": {"k": {"path": "x", "labels": LABELS, "prompt": "?"}}}, "labels.k: prompt='.' has no {text}"),
    "context": (
        {"questions": {"q": {"path": "{place}/questions.jsonl", "max_new_tokens": 3000}}},
        "max_new_tokens=3000 is beyond the model's context of 2048",
    ),
    "outputs": (
        {"questions": {"q": {"path": "{place}/questions.jsonl", "max_new_tokens": 1,
                             "outputs": {"hosted": "{place}/general.jsonl"}}}},
        "questions.q.outputs.hosted=.*: every line must be a JSON object with the field output",
    ),
    "name": (
        {"questions": {"q": {"path": "{place}/questions.jsonl", "max_new_tokens": 1,
                             "outputs": {"model": "{place}/hosted.jsonl"}}}},
        "questions.q.outputs.model: a model's column has that name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSALS))
def test_bad_tasks_get_one_sentence(place: Path, tmp_path: Path, case: str) -> None:
    raw, words = REFUSALS[case]
    inputs = {"model": str(place / "baseline"), "baseline": str(place / "baseline"), "out": str(tmp_path)}
    with pytest.raises((ConfigError, DataError), match=words):
        run(parse(Tasks, json.loads(json.dumps(raw).replace("{place}", str(place))), ""), inputs)


def test_the_command_prints_the_table_or_one_sentence(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(yaml.safe_dump({"perplexity": {"general": {"path": str(place / "general.jsonl")}}}))
    command = [str(place / "model"), "--baseline", str(place / "baseline"), "--tasks", str(tasks), "--out"]
    main([*command, str(tmp_path / "out")])
    assert "| perplexity, general | " in capsys.readouterr().out
    assert not (tmp_path / "out" / "grading.csv").exists()
    tasks.write_text("perplexity: {general: {pth: x}}")
    with pytest.raises(SystemExit) as ended:
        main([*command, str(tmp_path / "out")])
    assert str(ended.value).startswith(f"{tasks}: perplexity.general.pth: Extra inputs are not permitted")
