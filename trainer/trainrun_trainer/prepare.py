"""Text to rows, once per run: read, extract, filter, dedupe, split, tokenise, pack; the manifest is written last.

`prepare(config)` is a function of the data configuration and the text; its output lies in
`<checkpoint.path>/data/<hash>/` and is used by every later worker group of the run, so a changed text
folder cannot change a run that has started. The hash is of the configuration, in a run of several stages also of the
text. Half-done work lies in `<hash of the configuration>.work` and is gone on with after a kill, file by file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from trainrun_api.contract import CheckpointLayout
from trainrun_api.data_config import DataConfig

from trainrun_trainer.corpus.stages import Corpus
from trainrun_trainer.corpus.texts import Texts
from trainrun_trainer.errors import DataError, TextsChanged
from trainrun_trainer.examples import write_example_rows
from trainrun_trainer.logs import log
from trainrun_trainer.packing import HELD_OUT, TRAIN, Ints, Longs, Packer
from trainrun_trainer.prepared import FORMAT, DataManifest, data_hash, open_prepared
from trainrun_trainer.storage import Storage, hash_file
from trainrun_trainer.tokenizer import make_tokenizer
from trainrun_trainer.units import NOBODY, Units


def prepare(config: DataConfig, storage: Storage, units: Units = NOBODY, texts: Texts | None = None) -> DataManifest:
    """Reuse what is there and whole, or make it. Called by rank 0, under a claim.

    Raises DataError with one sentence naming file and line, or the source that is too small; TextsChanged.
    """
    found = open_prepared(config, storage, texts)
    if found is not None and _is_whole(found):
        return found
    name = data_hash(config, texts)
    place, half_done = f"{CheckpointLayout.DATA}/{name}", f"{CheckpointLayout.DATA}/{data_hash(config)}.work"
    if texts is not None and texts.files is None:
        storage.delete(place)
        raise TextsChanged(f"{storage.address(place)} is damaged or gone, so the files themselves are needed again")
    corpus = Corpus.of(config, storage.folder(half_done), units, None if texts is None else texts.files)
    storage.delete(place)
    folder = storage.folder(place)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"schema": FORMAT, "data_hash": name, "config": config.model_dump(), **_make(corpus, folder, units)}
    _refuse_too_little(config, facts)
    facts["files"] = {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    storage.settle(place)
    storage.put(f"{place}/{CheckpointLayout.MANIFEST}", json.dumps(facts, sort_keys=True).encode())
    shutil.rmtree(corpus.work, ignore_errors=True)
    return DataManifest(name, folder, facts)


def _is_whole(data: DataManifest) -> bool:
    for name, facts in data.facts["files"].items():
        path = data.folder / name
        if not path.is_file() or hash_file(path) != facts:
            return False
    return True


def _make(corpus: Corpus, folder: Path, units: Units) -> dict[str, Any]:
    """Every stage; what they found, for the manifest."""
    config = corpus.config
    units.expect(len(config.sources))
    counts = corpus.clean()
    copies = corpus.drop_copies()
    tokenizer = make_tokenizer(config.tokenizer, corpus.training_texts())
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "tokenizer" / "end_of_text").write_text(str(tokenizer.eos_token_id))
    too_long = corpus.tokenise(folder / "tokenizer", _hash_of_folder(folder / "tokenizer"))
    overlap = corpus.overlap()
    sources = {}
    for number, name in enumerate(sorted(config.sources)):
        packed = _pack_source(corpus, name, number, tokenizer.eos_token_id, folder)
        removed = {**counts[name]["removed"], **copies[name], **too_long[name]}
        read = counts[name]["read"]
        sources[name] = {**packed, "read": read, "removed": removed}
        units.done()
        shares = {reason: round(count / read, 4) for reason, count in removed.items()}
        log("prepared", source=name, documents_read=read, removed_shares=shares, overlap=overlap.get(name))
    return {"vocab_size": len(tokenizer), "sources": sources, "contamination": overlap}


def _pack_source(corpus: Corpus, name: str, number: int, end: int, folder: Path) -> dict[str, Any]:
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    content = xxhash.xxh3_128()
    with open(place / "documents.jsonl", "wb") as index:
        for file in corpus.of_source(name):
            index.write(corpus.part(file, "index").read_bytes())
            content.update(corpus.part(file, "digests").read_bytes())
    row_tokens = corpus.config.row_tokens
    counts: dict[str, Any]
    if corpus.config.sources[name].instruct is None:
        packers = {split: Packer(place, split, number, row_tokens) for split in (TRAIN, HELD_OUT)}
        for document, (split, tokens, _) in enumerate(_documents(corpus, name)):
            packers[split].add(document, tokens)
        counts = {split: packer.close() for split, packer in packers.items()}
    else:
        sides: dict[str, list[tuple[int, Ints, Longs]]] = {TRAIN: [], HELD_OUT: []}
        for document, (split, tokens, learned) in enumerate(_documents(corpus, name)):
            sides[split].append((document, tokens, learned))
        counts = {s: write_example_rows(place, s, number, row_tokens, sides[s], end) for s in (TRAIN, HELD_OUT)}
    return {**counts, "content_xxh3": content.hexdigest()}


def _documents(corpus: Corpus, name: str) -> Iterator[tuple[str, Ints, Longs]]:
    """(split, tokens, learned spans) of each document of a source; the tokens lie in a memory map."""
    for file in corpus.of_source(name):
        path = corpus.part(file, "tokens")
        tokens: Ints = np.memmap(path, np.int32, "r") if path.stat().st_size else np.zeros(0, np.int32)
        learned: Longs = np.load(corpus.part(file, "learned.npy"))
        start = 0
        with open(corpus.part(file, "index"), "rb") as index:
            for i, line in enumerate(index):
                entry = json.loads(line)
                first, last = np.searchsorted(learned[:, 0], [i, i + 1])
                end = start + int(entry["tokens"])
                yield str(entry["split"]), tokens[start:end], learned[first:last, 1:]
                start = end


def _hash_of_folder(folder: Path) -> str:
    files = {p.name: hash_file(p)["xxh3"] for p in sorted(folder.iterdir()) if p.is_file()}
    return xxhash.xxh3_64_hexdigest(json.dumps(files, sort_keys=True).encode())


def _refuse_too_little(config: DataConfig, facts: dict[str, Any]) -> None:
    for name, source in facts["sources"].items():
        if not source[TRAIN]["documents"] + source[HELD_OUT]["documents"]:
            raise DataError(f"data.sources.{name}.path={config.sources[name].path}: every document is empty; add text")
        weight = config.mix.get(name, 0.0) if config.mix else 1.0
        if weight > 0 and not source[TRAIN]["rows"]:
            raise DataError(
                f"data.sources.{name}: {source[TRAIN]['tokens']} training tokens do not fill one row of "
                f"data.row_tokens={config.row_tokens}; add text, use shorter rows, or give the source weight 0"
            )
