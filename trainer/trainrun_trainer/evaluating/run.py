"""One evaluation: every task for the baseline and for the model, one model in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainrun_api.evaluation import BASELINE, MODEL, OTHER_TOKENS, RESULT
from trainrun_api.stage_config import Tasks

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.evaluating import grading, report
from trainrun_trainer.evaluating.classification import classify
from trainrun_trainer.evaluating.lm_eval import run_suites
from trainrun_trainer.evaluating.perplexity import perplexity
from trainrun_trainer.evaluating.questions import compare, generate, read_outputs, read_questions
from trainrun_trainer.evaluating.scoring import Loaded
from trainrun_trainer.model_folder import ModelFolder
from trainrun_trainer.units import NOBODY, Units
from trainrun_trainer.vocabulary import Vocabulary, differing, told

TABLE, SAMPLES = "evaluation.md", "samples.jsonl"
Columns = dict[str, dict[str, Any]]


def run(config: Tasks, inputs: Mapping[str, Any], units: Units = NOBODY) -> dict[str, Any]:
    """Evaluate `inputs["model"]` beside `inputs["baseline"]` into the folder `inputs["out"]`; returns what is written.

    Raises TrainerError.
    """
    folders = [(name, Path(inputs[name])) for name in (BASELINE, MODEL)]
    out = Path(inputs["out"])
    out.mkdir(parents=True, exist_ok=True)
    units.expect(len(folders) * config.num_sets)
    result = evaluate(config, folders, out, units)
    if result["samples"]:
        lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in result["samples"])
        (out / SAMPLES).write_text("".join(lines))
        grading.write_sheet(out, result["samples"])
    (out / TABLE).write_text(report.markdown(result))
    (out / RESULT).write_text(json.dumps(result, indent=1))
    return result


def evaluate(config: Tasks, folders: Iterable[tuple[str, Path]], out: Path, units: Units) -> dict[str, Any]:
    """Every task of every (column, folder); the first column is what the others are compared with.

    A folder is needed only until the next is asked for.
    """
    if not config.num_sets:
        raise ConfigError("the tasks file names nothing to measure; give perplexity, questions, labels or lm_eval")
    result: dict[str, Any] = {
        "columns": {}, "tasks": config.model_dump(mode="json"), "perplexity": {}, "questions": {}, "labels": {},
        "lm_eval": {}, "samples": [], "warnings": [],
    }  # fmt: skip
    firsts: Vocabulary | None = None
    for column, folder in folders:
        result["columns"][column] = ModelFolder(folder).facts()
        loaded = Loaded.open(folder, config)
        words = Vocabulary.of(loaded.tokenizer)
        firsts = firsts or words
        result["columns"][column] |= _other_tokens(words, firsts)
        for name, texts in config.perplexity.items():
            measured = perplexity(loaded, texts, f"perplexity.{name}")
            result["perplexity"].setdefault(name, {})[column] = measured
            units.done()
        for name, labels in config.labels.items():
            result["labels"].setdefault(name, {})[column] = classify(loaded, labels, f"labels.{name}")
            units.done()
        for name in config.questions:
            _ask(config, name, loaded, column, result)
            units.done()
        del loaded
        if config.lm_eval is not None:
            suites = run_suites(config.lm_eval, folder, out / "lm_eval" / column, config.accelerator)
            for name, value in suites.items():
                result["lm_eval"].setdefault(name, {})[column] = value
            units.done()
    models_first = sorted(result["columns"].items(), key=lambda column: "files" not in column[1])
    result["columns"] = dict(models_first)
    result["warnings"] = list(_losses(config, result["perplexity"], result["columns"]))
    if config.perplexity:
        result["warnings"] += _apart(result["columns"])
    return result


def _other_tokens(words: Vocabulary, firsts: Vocabulary) -> dict[str, str]:
    """Why the perplexities of a column are not to be compared with the first one's, if that is so."""
    differ = differing(words, firsts)
    return {OTHER_TOKENS: told(differ, words, firsts)} if differ else {}


def _ask(config: Tasks, name: str, loaded: Loaded, column: str, result: dict[str, Any]) -> None:
    """Generate and compare; with the first column's questions, other systems' answers are compared too."""
    task, field = config.questions[name], f"questions.{name}"
    questions = read_questions(loaded, task, field)
    answers = {column: generate(loaded, questions, task, field)}
    if name not in result["questions"]:
        for other, path in task.outputs.items():
            if other in (BASELINE, MODEL):
                raise ConfigError(f"{field}.outputs.{other}: a model's column has that name; choose another")
            answers[other] = read_outputs(path, len(questions), f"{field}.outputs.{other}")
            result["columns"].setdefault(other, {"path": path})
    for of, texts in answers.items():
        result["questions"].setdefault(name, {})[of] = compare(questions, texts)
        for question, text in zip(questions, texts, strict=True):
            result["samples"].append({"set": name, "column": of, **question.facts(), "output": text})


def _apart(columns: Mapping[str, Any]) -> Iterable[str]:
    """Sentences about columns whose perplexity is the mean over other tokens than the first one's."""
    first = next(iter(columns))
    for column, of in columns.items():
        if OTHER_TOKENS in of:
            yield (
                f"{column} has another tokenizer than that of {first}, so that their perplexities cannot be compared: "
                f"{of[OTHER_TOKENS]}"
            )


def _losses(config: Tasks, found: Mapping[str, Columns], facts: Mapping[str, Any]) -> Iterable[str]:
    """Sentences about sets on which a model has become worse than the task allows."""
    for name, columns in found.items():
        most = config.perplexity[name].max_ratio
        first = next(iter(columns))
        before = columns[first]["perplexity"]
        for column, of in columns.items():
            if most is not None and OTHER_TOKENS not in facts[column] and of["perplexity"] > most * before:
                ratio = of["perplexity"] / before
                yield (
                    f"{column} has lost on {name}: perplexity {of['perplexity']:.1f} is {ratio:.2f} times that of "
                    f"{first}, {before:.1f}, and {most:g} is allowed"
                )
