"""One side of `resume_start.py`: Hugging Face's Trainer on the same rows.

{map|stream} make CONFIG STORE STEP      save a checkpoint, and set its counter to that step
{map|stream} resume CONFIG STORE STEP    resume from it, up to the next step
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from trainrun_api.train_config import TrainConfig
from trainrun_trainer.model import build_model
from trainrun_trainer.packing import TRAIN, PackedRows
from trainrun_trainer.prepared import open_prepared
from trainrun_trainer.rows import open_rows
from trainrun_trainer.stores import open_storage
from transformers import Trainer, TrainerCallback, TrainingArguments

Item = dict[str, torch.Tensor]


def item(rows: PackedRows, row: int) -> Item:
    """One row as a training example."""
    tokens = torch.from_numpy(rows.tokens(row).astype("int64"))
    return {"input_ids": tokens, "labels": tokens}


class MapRows(torch.utils.data.Dataset[Item]):
    """Rows by their number."""

    def __init__(self, rows: PackedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows.num_rows

    def __getitem__(self, index: int) -> Item:
        return item(self.rows, index)


class StreamRows(torch.utils.data.IterableDataset[Item]):
    """Rows one after the other, as they come from files that nobody has counted."""

    def __init__(self, rows: PackedRows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Item]:
        return (item(self.rows, row) for row in range(self.rows.num_rows))


class FirstStep(TrainerCallback):
    """Notes CPU time and clock after the first step, then asks for the end."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.monotonic()
        self.found: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Of the only step."""
        self.found = {
            "step": state.global_step, "cpu_seconds": time.process_time() - self.cpu,
            "seconds": time.monotonic() - self.wall,
        }  # fmt: skip
        control.should_training_stop = True


def main(kind: str, mode: str, config: TrainConfig, store: str, step: int) -> None:
    """Do it; one JSON line."""
    clock = FirstStep()
    torch.set_num_threads(1)
    data = open_prepared(config.data, open_storage(store))
    assert data is not None, "the other side prepares the rows first"
    rows = open_rows(data, "domain", TRAIN)
    model = build_model(config.model, data.facts["vocab_size"], 0, config.data.row_tokens, 0.0, config.seed)
    folder = Path(store) / f"hf-{kind}"
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=1 if mode == "make" else config.total_steps, use_cpu=True,
        per_device_train_batch_size=config.global_batch_rows, optim="adamw_torch_fused", learning_rate=1e-3,
        save_strategy="steps" if mode == "make" else "no", save_steps=1, logging_steps=1_000_000, report_to="none",
        disable_tqdm=True, dataloader_num_workers=0, dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip
    dataset = MapRows(rows) if kind == "map" else StreamRows(rows)
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset, callbacks=[clock])
    if mode == "make":
        trainer.train()
        saved = folder / "checkpoint-1" / "trainer_state.json"
        state = json.loads(saved.read_text())
        saved.write_text(json.dumps(state | {"global_step": step, "max_steps": config.total_steps}))
    else:
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    print(json.dumps(clock.found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], TrainConfig.model_validate_json(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
