"""What must be known of an accelerator before torch is imported. Imports nothing heavy; device.py has the rest."""

from __future__ import annotations

from collections.abc import Mapping

START_METHOD: Mapping[str, str] = {"cpu": "forkserver", "cuda": "forkserver", "neuron": "spawn"}
"""How a launcher starts workers; Neuron's runtime has not been proven under a fork server."""

PRELOAD = ("trainrun_trainer.launcher_group", "trainrun_trainer.worker")
"""What a fork server imports ahead of the workers; the worker pulls in torch and the model classes."""
PRELOAD_LORA = "peft"
"""Only for runs with adapters: it costs half a CPU second."""
