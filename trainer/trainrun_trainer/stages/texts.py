"""Which text a start of a stage works with: the one that it has begun with, or the files as they are now."""

from __future__ import annotations

import json

from trainrun_api.contract import CheckpointLayout
from trainrun_api.data_config import DataConfig

from trainrun_trainer.corpus.texts import Known, Texts, look_at
from trainrun_trainer.logs import log
from trainrun_trainer.prepared import data_hash, open_prepared
from trainrun_trainer.stages.records import DONE, Records, StageRecord
from trainrun_trainer.storage import LocalDirectory

KNOWN = f"{CheckpointLayout.DATA}/texts.json"
"""What all stages know of files that were read. It is true whoever writes it, so that no start can spoil it."""


def texts_of(config: DataConfig, records: Records, begun: StageRecord | None) -> Texts:
    """A stage that has begun and is not done goes on with its data; others look at the files. Raises DataError."""
    if begun is not None and begun.state != DONE:
        texts = Texts(begun.texts)
        if open_prepared(config, records.root, texts) is not None:
            log(
                "texts-kept", stage=records.name, data=data_place(config, texts),
                message="the stage goes on with the text that it has begun with; files count again when it is done",
            )  # fmt: skip
            return texts
    known = _known(records.root)
    texts, known_now = look_at(config, known)
    if known_now != known:
        records.root.put(KNOWN, json.dumps(known_now).encode())
    return texts


def data_place(config: DataConfig, texts: Texts) -> str:
    """Folder of the prepared data, below the root."""
    return f"{CheckpointLayout.DATA}/{data_hash(config, texts)}"


def _known(root: LocalDirectory) -> Known:
    try:
        found: Known = json.loads(root.get(KNOWN))
    except (FileNotFoundError, ValueError):
        return {}
    return found
