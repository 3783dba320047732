"""Everything that differs between CPU, CUDA and Neuron. No other module names an accelerator.

Nothing here runs at import, so that a fork server may preload it.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch

from trainrun_trainer.errors import ConfigError, DeviceMemoryError, DeviceSuspect, TrainerError

LOSS_CHUNK_BYTES = 512 << 10
"""Half of a usual core's second-level cache."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt, malloc.h."""
KEPT_BYTES, HEAP_BYTES = 1 << 30, 32 << 20
"""The heap's end stays when it is free, up to this much; buffers up to this size, glibc's limit, lie in the heap."""


def open_device(accelerator: str, local_rank: int, threads: int) -> torch.device:
    """The device of this worker, ready to use."""
    torch.set_num_threads(threads)
    if accelerator == "cpu":
        _keep_freed_memory()
        return torch.device("cpu")
    if accelerator == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                "workers.accelerator=cuda, but this container sees no CUDA device; request one or use cpu"
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # fixed summation order in cuBLAS
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    raise ConfigError(f"workers.accelerator={accelerator}: this version trains on cpu and cuda")


def _keep_freed_memory() -> None:
    """Let the next layer have what this one has freed: glibc gives it back to the kernel, which hands it out again page
    by page, zeroed. That is 4% of the CPU time of a small model's step. Other C libraries are left as they are.
    """
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)


def collective_backend(device: torch.device) -> str:
    """Backend string of the process group: objects travel over gloo, tensors over the device's own."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def compute_dtype(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Context of a forward pass: bf16 computes in bf16 over fp32 weights.

    Casts are not cached: under FSDP a cached cast would keep every unsharded layer alive.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def loss_chunk_rows(logits: torch.Tensor) -> int:
    """Rows of logits that the loss handles at once: what stays in a CPU's cache, or all on a device."""
    if logits.device.type != "cpu":
        return max(1, logits.shape[0])
    return max(1, LOSS_CHUNK_BYTES // (4 * logits.shape[1]))


def describe(device: torch.device) -> str:
    """Model of the device, for the numerics fingerprint."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def as_device_error(error: BaseException, batch: str) -> TrainerError | None:
    """Translate what the device's library raised; None if the error is not the device's.

    `batch` says what was asked of the memory, for the sentence.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return DeviceMemoryError(
            f"device memory exhausted with {batch}; use activation_checkpointing=full, lower micro_batch_rows or "
            "data.row_tokens, or shard over more workers"
        )
    if isinstance(error, torch.AcceleratorError):
        return DeviceSuspect(f"the device failed: {text.splitlines()[0]}")
    return None
