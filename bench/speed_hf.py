"""One side of `trainer_speed.py`: Hugging Face's Trainer on the rows that our order function draws."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sized
from typing import Any

import torch
from trainrun_api.train_config import TrainConfig
from trainrun_trainer.loss import IGNORED
from trainrun_trainer.model import build_model
from trainrun_trainer.plan import Plan, make_plan
from trainrun_trainer.prepare import prepare
from trainrun_trainer.rows import TrainRows
from trainrun_trainer.stores import open_storage
from transformers import Trainer, TrainerCallback, TrainingArguments
from turns import wait_for_turn

WARMUP_STEPS = 4


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The same packed rows in the same order, made beforehand: the data work is not counted against HF."""

    def __init__(self, config: TrainConfig, rows: TrainRows, plan: Plan) -> None:
        self.items = []
        for step in range(1, config.total_steps + 1):
            for slot in range(config.global_batch_rows // config.micro_batch_rows):
                made = rows.slot(step, slot)
                for tokens, places in zip(made.input_ids, made.position_ids, strict=True):
                    labels = tokens.clone()
                    labels[places == 0] = IGNORED  # Trainer shifts: a document's first token is predicted by nobody
                    self.items.append({"input_ids": tokens, "position_ids": places, "labels": labels})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.items[index]


class InOrder(Trainer):
    """Trainer without shuffling."""

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        assert isinstance(self.train_dataset, Sized)
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Clock(TrainerCallback):
    """CPU time after each step."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Note the process's CPU time."""
        self.marks.append(time.process_time())
        wait_for_turn()


def main(config: TrainConfig, store: str) -> None:
    """Train, then print one JSON line."""
    torch.set_num_threads(config.threads_per_worker)
    data = prepare(config.data, open_storage(store))
    plan = make_plan(config, "auto", 1)
    rows = Rows(config, TrainRows(config.data, data, plan, config.seed, torch.device("cpu")), plan)
    model = build_model(config.model, data.facts["vocab_size"], 0, config.data.row_tokens, 0.0, config.seed)
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, max_steps=config.total_steps, per_device_train_batch_size=config.micro_batch_rows,
            gradient_accumulation_steps=config.global_batch_rows // config.micro_batch_rows,
            optim="adamw_torch_fused", learning_rate=config.optimizer.lr, weight_decay=config.optimizer.weight_decay,
            adam_beta2=config.optimizer.beta2, max_grad_norm=config.optimizer.clip_norm, lr_scheduler_type="cosine",
            warmup_steps=config.schedule.warmup_steps, bf16=config.precision == "bf16", use_cpu=True,
            save_strategy="no", logging_steps=config.total_steps, report_to="none", disable_tqdm=True,
            dataloader_num_workers=0, dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip
        result = InOrder(model=model, args=arguments, train_dataset=rows, callbacks=[clock]).train()
    steps = len(clock.marks) - WARMUP_STEPS
    print(json.dumps({
        "tokens": steps * config.global_batch_rows * config.data.row_tokens,
        "cpu_seconds": clock.marks[-1] - clock.marks[WARMUP_STEPS - 1],
        "loss": result.training_loss,
    }))  # fmt: skip


if __name__ == "__main__":
    main(TrainConfig.model_validate_json(sys.argv[1]), sys.argv[2])
