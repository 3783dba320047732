"""What the accelerators say about themselves, by local rank; silence where there is nobody to ask."""

from __future__ import annotations

from trainrun_trainer.agent.sampling import DeviceReader, no_devices


def reader(accelerator: str) -> DeviceReader:
    """The reader for an accelerator; on a CPU the workers' CPU time is the activity."""
    return no_devices
