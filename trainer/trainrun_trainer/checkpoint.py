"""Save and load: DCP's planner over safetensors files, everything else JSON in a manifest written last.

Final names from the start, no directory rename, no pickle. `snapshot` copies to the host and `commit`
writes the copy, so that a later asynchronous or two-tier save changes neither caller nor format.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from trainrun_api.contract import SCHEMA, CheckpointLayout

from trainrun_trainer.claims import Claim, read_claims, refuse_if_fenced
from trainrun_trainer.digest import state_digest
from trainrun_trainer.errors import Fenced, NoUsableCheckpoint, SaveFailed
from trainrun_trainer.manifest import Invalid, read_manifest, read_whole, seal
from trainrun_trainer.optimizer import NamedTensor, digest_pieces
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.resume import history, stored_checkpoints
from trainrun_trainer.retention import Stored, to_delete
from trainrun_trainer.state import TrainState
from trainrun_trainer.storage import Storage
from trainrun_trainer.tensor_files import TensorFiles

SLOW_BYTES_PER_SECOND = 5e6
"""Per rank; shared file systems that are slower than this under all ranks at once are out of order."""


@dataclass(frozen=True)
class HostCopy:
    """The training state at one step, on the host; training may go on."""

    state: TrainState
    tensors: dict[str, torch.Tensor]
    """This rank's pieces, by name."""


@dataclass(frozen=True)
class Durable:
    """A committed checkpoint."""

    step: int
    claim: int
    path: str
    size_bytes: int
    state_digest: str
    committed_monotonic: float

    def facts(self) -> dict[str, Any]:
        """For outcomes and progress records."""
        return {
            "step": self.step, "claim": self.claim, "path": self.path, "size_bytes": self.size_bytes,
            "state_digest": self.state_digest,
        }  # fmt: skip


class Checkpoints:
    """Saves of one worker group, under its claim."""

    def __init__(
        self,
        storage: Storage,
        ranks: Ranks,
        claim: Claim,
        tensors: Sequence[NamedTensor],
        described: dict[str, Any],
        keep_last: int,
        keep_every_steps: int | None,
    ) -> None:
        self.storage, self.ranks, self.claim, self.tensors = storage, ranks, claim, tensors
        self.described = described
        """config, config_hash, data_hash and numerics of every manifest."""
        self.keep_last, self.keep_every_steps = keep_last, keep_every_steps
        self.durable: Durable | None = None
        self.tried_monotonic = time.monotonic()
        """When the last save began, or this group: the next one by time is due an interval later."""
        self.proven: set[Stored] = set()

    @property
    def first_save_seconds(self) -> float:
        """How long this rank's pieces may take on a slow disk: what to expect before anything was saved."""
        num_bytes = sum(t.local.numel() * t.local.element_size() for t in self.tensors)
        return num_bytes / SLOW_BYTES_PER_SECOND

    def snapshot(self, state: TrainState) -> HostCopy:
        """Copy this rank's pieces to the host."""
        return HostCopy(state, {t.name: t.local.detach().to("cpu", copy=True) for t in self.tensors})

    def commit(self, copy: HostCopy, before_manifest: Callable[[], None]) -> Durable:
        """Write a copy and its manifest; durable when this returns, and the same on every rank.

        `before_manifest` makes durable, on rank 0, what must not be younger than the checkpoint.
        Raises SaveFailed if some rank could not write (nothing of the save is left), Fenced if a newer
        claim exists.
        """
        self.tried_monotonic = time.monotonic()
        step = copy.state.step
        place = CheckpointLayout.step_dir(step, self.claim.k)
        self.ranks.decide(lambda: refuse_if_fenced(self.storage, self.claim))
        try:
            files = self._write_tensors(place, copy)
            digest = state_digest(self.ranks, digest_pieces(self.tensors, copy.tensors), copy.state.counters())
            self._decide_or_fail(before_manifest)
            self._decide_or_fail(lambda: self._write_manifest(place, copy.state, files, digest))
        except SaveFailed:
            self.ranks.decide(lambda: self._remove_failed(place))
            raise
        size = sum(int(facts["size"]) for facts in files.values())
        self.durable = Durable(step, self.claim.k, self.storage.address(place), size, digest, time.monotonic())
        return self.durable

    def load(self, manifest: dict[str, Any]) -> TrainState:
        """Fill the tensors from a checkpoint that rank 0 has validated; its digest must match."""
        step, claim = int(manifest["step"]), int(manifest["claim"])
        place = CheckpointLayout.step_dir(step, claim)
        folder = self.storage.read_folder(place)
        wanted = {t.name: t.whole(t.local) for t in self.tensors}
        with _one_process_is_meant():
            dcp.load(  # type: ignore[attr-defined]
                wanted, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=self.ranks.world_size == 1
            )
        state = TrainState.from_counters(manifest["counters"])
        pieces = digest_pieces(self.tensors, {t.name: t.local for t in self.tensors})
        digest = state_digest(self.ranks, pieces, state.counters())
        if digest != manifest["state_digest"]:
            raise NoUsableCheckpoint(
                f"{folder.name} was loaded as {digest}, but was saved as {manifest['state_digest']}: "
                "its files are whole, so the program that wrote or read it is at fault"
            )
        self.proven.add(Stored(step, claim))
        size = sum(int(facts["size"]) for facts in manifest["files"].values())
        self.durable = Durable(step, claim, self.storage.address(place), size, digest, time.monotonic())
        return state

    def prune(self) -> list[str]:
        """Delete what retention gives up, on rank 0; returns the names. Raises Fenced."""
        return self.ranks.decide(self._prune)

    def _write_tensors(self, place: str, copy: HostCopy) -> dict[str, dict[str, Any]]:
        files = TensorFiles(self.storage, place)
        writer = HuggingFaceStorageWriter(str(files.folder), save_distributed=True)
        writer.fs = files
        pieces = {t.name: t.whole(copy.tensors[t.name]) for t in self.tensors}
        try:
            with _one_process_is_meant():
                dcp.save(  # type: ignore[attr-defined]
                    pieces, storage_writer=writer, no_dist=self.ranks.world_size == 1
                )
        except CheckpointException as error:
            causes = "; ".join(f"rank {rank}: {cause[0]}" for rank, cause in sorted(error.failures.items()))
            raise SaveFailed(f"step {copy.state.step} was not saved: {causes}") from error
        except OSError as error:
            raise SaveFailed(f"step {copy.state.step} was not saved: {error}") from error
        return {name: facts for rank in self.ranks.gather(files.written) for name, facts in rank.items()}

    def _write_manifest(self, place: str, state: TrainState, files: dict[str, dict[str, Any]], digest: str) -> None:
        parent = self.claim.parent
        refuse_if_fenced(self.storage, self.claim)
        self.storage.put(
            f"{place}/{CheckpointLayout.MANIFEST}",
            seal(
                {
                    "schema": SCHEMA, "step": state.step, "claim": self.claim.k,
                    "parent": None if parent is None else {"step": parent.step, "claim": parent.claim},
                    "run_uid": self.claim.owner.run_uid, "attempt": self.claim.owner.attempt,
                    "generation": self.claim.owner.generation, "files": files, "state_digest": digest,
                    "rows_digest": state.rows_digest, "counters": state.counters(),
                    "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **self.described,
                }
            ),
        )  # fmt: skip

    def _decide_or_fail(self, act: Callable[[], None]) -> None:
        """Run on rank 0; an OSError there is SaveFailed on every rank."""

        def attempt() -> str | None:
            try:
                act()
            except OSError as error:
                return str(error)
            return None

        problem = self.ranks.decide(attempt)
        if problem is not None:
            raise SaveFailed(f"the manifest was not written: {problem}")

    def _remove_failed(self, place: str) -> None:
        try:
            refuse_if_fenced(self.storage, self.claim)
            self.storage.delete(place)
        except (Fenced, OSError):
            return  # without a manifest the folder does not exist for any reader

    def _prune(self) -> list[str]:
        claims = read_claims(self.storage)
        ours = history(self.storage, claims)
        committed = [s for s in ours if isinstance(read_manifest(self.storage, s.step, s.claim), dict)]
        if len(committed) > self.keep_last:
            self._prove(max(committed))
        parent = self.claim.parent
        protected = set() if parent is None else {Stored(parent.step, parent.claim)}
        strays = [s for s in stored_checkpoints(self.storage) if s not in set(committed)]
        doomed = to_delete(committed, strays, self.keep_last, self.keep_every_steps, protected, self.proven)
        names = [CheckpointLayout.step_dir(s.step, s.claim) for s in doomed]
        for name in names:
            refuse_if_fenced(self.storage, self.claim)
            self.storage.delete(f"{name}/{CheckpointLayout.MANIFEST}")  # first: a half-deleted folder does not exist
            self.storage.delete(name)
        return names

    def _prove(self, newest: Stored) -> None:
        """Read the newest checkpoint again before older ones go; if it is bad, they stay."""
        fields = read_manifest(self.storage, newest.step, newest.claim)
        if newest not in self.proven and isinstance(fields, dict):
            if isinstance(read_whole(self.storage, fields), Invalid):
                return
            self.proven.add(newest)


@contextmanager
def _one_process_is_meant() -> Generator[None, None, None]:
    """DCP warns of a missing process group; a run of one process has none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
