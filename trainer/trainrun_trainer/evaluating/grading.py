"""Grading by people: a sheet that does not say which system answered, and the summary of what they wrote into it.

`python -m trainrun_trainer.evaluating.grading SHEET...` reads the sheets of one evaluation, one per grader; the key
lies beside them.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrun_trainer.errors import DataError, TrainerError

SHEET, KEY = "grading.csv", "grading-key.json"
COLUMNS = ("id", "prompt", "reference", "output", "grade", "made_up")
LOWEST, HIGHEST = 1, 5
YES_OR_NO = {"yes": True, "no": False}


def write_sheet(folder: Path, samples: Sequence[Mapping[str, Any]], seed: int = 0) -> None:
    """Write sheet and key; the order is shuffled, so that neither place nor name tells the system."""
    shuffled = list(samples)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    key = {}
    with open(folder / SHEET, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for number, sample in enumerate(shuffled, start=1):
            key[str(number)] = {name: sample[name] for name in ("set", "number", "column")}
            shown = {name: sample[name] for name in ("prompt", "reference", "output")}
            writer.writerow({"id": number, **shown, "grade": "", "made_up": ""})
    (folder / KEY).write_text(json.dumps(key, indent=1))


def summary(sheets: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """{column: mean grade, grades by number, share made up, how many were graded}. Raises DataError, naming the row."""
    key = _key(sheets[0].parent / KEY)
    grades: dict[str, list[int]] = {of["column"]: [] for of in key.values()}
    made_up: dict[str, list[bool]] = {column: [] for column in grades}
    for sheet in sheets:
        for where, row in _rows(sheet):
            if row["id"] not in key:
                raise DataError(f"{where}: id={row['id']!r} is not in {KEY}; grade the sheet that lies beside it")
            column = key[row["id"]]["column"]
            grade, flag = row["grade"].strip(), row["made_up"].strip().lower()
            if grade:
                grades[column].append(_grade(grade, where))
            if flag:
                if flag not in YES_OR_NO:
                    raise DataError(f"{where}: made_up={flag!r}, expected yes, no or nothing")
                made_up[column].append(YES_OR_NO[flag])
    return {
        column: {
            "graded": len(found), "mean": sum(found) / len(found) if found else None,
            "grades": {str(g): found.count(g) for g in range(LOWEST, HIGHEST + 1)},
            "made_up_share": sum(made_up[column]) / len(made_up[column]) if made_up[column] else None,
        }
        for column, found in sorted(grades.items())
    }  # fmt: skip


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary in Markdown."""
    lines = ["| answers of | graded | mean of 1 to 5 | made up |", "| --- | --- | --- | --- |"]
    for column, of in found.items():
        mean = "-" if of["mean"] is None else f"{of['mean']:.2f}"
        share = "-" if of["made_up_share"] is None else f"{of['made_up_share']:.0%}"
        lines.append(f"| {column} | {of['graded']} | {mean} | {share} |")
    return "\n".join(lines) + "\n"


def _key(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); sheets are summed up in the folder that has their key"
        ) from error
    return found


def _rows(sheet: Path) -> list[tuple[str, dict[str, str]]]:
    try:
        with open(sheet, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, ValueError) as error:
        raise DataError(f"{sheet} cannot be read ({error})") from error
    missing = [name for name in ("id", "grade", "made_up") if name not in (reader.fieldnames or [])]
    if missing:
        raise DataError(f"{sheet}: column {missing[0]} is missing; keep the header {','.join(COLUMNS)}")
    return [(f"{sheet}, answer {row['id']}", {k: v or "" for k, v in row.items() if k}) for row in rows]


def _grade(text: str, where: str) -> int:
    if not text.isdigit() or not LOWEST <= int(text) <= HIGHEST:
        raise DataError(f"{where}: grade={text!r}, expected a whole number from {LOWEST} to {HIGHEST}, or nothing")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the summary; exit code 1 and one sentence if a sheet is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m trainrun_trainer.evaluating.grading", description="Sum up graded sheets."
    )
    parser.add_argument(
        "sheets", type=Path, nargs="+", metavar="SHEET", help=f"{SHEET} of an evaluation, or its copies"
    )
    try:
        found = summary(parser.parse_args(arguments).sheets)
    except TrainerError as error:
        sys.exit(str(error))
    print(table(found), end="")


if __name__ == "__main__":
    main()
