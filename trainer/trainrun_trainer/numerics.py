"""Fingerprint of everything that decides a run's bits besides its configuration and its data."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from trainrun_trainer import device as devices

VERSIONED = ("trainrun", "torch", "transformers", "tokenizers", "safetensors", "numpy", "peft")
"""Packages that a manifest names."""


def fingerprint(
    device: torch.device,
    world_size: int,
    mesh: Mapping[str, int],
    threads: int,
    precision: str,
    attention: str,
    is_fused: bool,
) -> dict[str, Any]:
    """Equal fingerprints promise equal bits; different ones do not."""
    return {
        "torch": torch.__version__, "device": devices.describe(device), "threads": threads,
        "world_size": world_size, "mesh": dict(mesh), "precision": precision, "attention": attention,
        "fused": is_fused,
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of ourselves, of Python and of what decides about numbers and formats."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """'name: then -> now' for each difference."""
    names = sorted({*then, *now})
    return [f"{n}: {then.get(n)} -> {now.get(n)}" for n in names if then.get(n) != now.get(n)]
