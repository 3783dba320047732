"""Errors of the trainer; `worker.run` alone translates them into the contract's exit codes.

TrainerError
+-- ConfigError          20  the user must change the configuration
+-- DataError            21  the user must change the text
|   +-- TextsChanged     21  ... while it was read, again and again: each time all begins anew
+-- DeviceMemoryError    22  the device's memory does not hold this batch
+-- DeviceSuspect        30  the device misbehaves: run elsewhere
+-- NumericalFault       31  loss or gradient norm is not finite
+-- NoUsableCheckpoint   40  checkpoints were committed and none can be used
+-- StorageRefused       41  the checkpoint storage does not take what must be kept
    +-- Fenced           41  a newer worker group owns the storage: this one must write no more
SaveFailed                   one save failed; training goes on and tries again
"""

from __future__ import annotations

from trainrun_api.contract import CAUSE_OF_EXIT, ExitCode


class TrainerError(Exception):
    """Root of what ends a worker with a contract code. The message is one sentence for a person."""

    exit_code: ExitCode = ExitCode.ERROR

    @property
    def cause(self) -> str:
        """Name of the cause in outcomes and termination messages."""
        return CAUSE_OF_EXIT[self.exit_code]


class ConfigError(TrainerError):
    """The configuration cannot work; a retry cannot help."""

    exit_code = ExitCode.BAD_CONFIG


class DataError(TrainerError):
    """The text cannot be used; the message names file and line."""

    exit_code = ExitCode.BAD_DATA


class TextsChanged(DataError):
    """A file is no longer what it was when the work on the text began."""


class DeviceMemoryError(TrainerError):
    """The device's memory does not hold this batch."""

    exit_code = ExitCode.DEVICE_OUT_OF_MEMORY


class DeviceSuspect(TrainerError):
    """The device reported a fault of its own."""

    exit_code = ExitCode.DEVICE_SUSPECT


class NumericalFault(TrainerError):
    """Loss or gradient norm is not finite, agreed by all ranks before the weights changed."""

    exit_code = ExitCode.NUMERICAL_FAULT


class NoUsableCheckpoint(TrainerError):
    """Checkpoints were committed, but none that may be used is valid."""

    exit_code = ExitCode.NO_CHECKPOINT


class StorageRefused(TrainerError):
    """The checkpoint storage does not take what must be kept."""

    exit_code = ExitCode.STORAGE_REFUSED


class Fenced(StorageRefused):
    """A newer claim exists: another worker group has taken over."""


class SaveFailed(Exception):
    """One save failed on some rank; all ranks know. Its remains have been removed."""
