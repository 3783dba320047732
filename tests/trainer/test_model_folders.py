"""A folder under model.path that cannot be loaded: one sentence that says what to do, before any text is prepared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainrun_api.train_config import ModelConfig, TrainConfig
from trainrun_trainer.base import base_hash
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.model import build_model
from trainrun_trainer.model_fit import refuse_unfit_model

from tests.trainer.folders import VOCABULARY, save_model
from tests.trainer.runs import Site, only_code, tiny_config

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0\nsize 4824176\n"


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def index_of(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles only": (
        pickle_only,
        "its weights are pickled (pytorch_model.bin), and a pickle can run any code, so none is loaded; expected "
        "safetensors: convert them where you trust them, AutoModelForCausalLM.from_pretrained(OLD)"
        ".save_pretrained(NEW), and copy the tokenizer",
    ),
    "no weights": (
        lambda folder: (folder / WEIGHTS).unlink(),
        "model.safetensors is not there; give a Hugging Face folder with all its safetensors",
    ),
    "cut off": (cut, "model.safetensors is torn or no safetensors file (Error while deserializing header: incomplete"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "model.safetensors is torn or no safetensors file"),
    "git-lfs pointer": (
        lambda folder: (folder / WEIGHTS).write_bytes(POINTER),
        "model.safetensors is git-lfs's pointer to the file, not the file; run git lfs pull where it was cloned",
    ),
    "a shard too few": (
        lambda folder: index_of(folder, json.dumps({"weight_map": {"lm_head.weight": "model-00002.safetensors"}})),
        "model-00002.safetensors is not there; give a Hugging Face folder with all its safetensors",
    ),
    "no index": (lambda folder: index_of(folder, "{}"), "its model.safetensors.index.json cannot be read ('weight_map"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "its config.json cannot be read ([Errno 2] No"),
    "config is a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "its config.json cannot be read (it holds no JSON object)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BROKEN))
def test_what_cannot_be_loaded_is_told_in_one_sentence(text: Path, tmp_path: Path, case: str) -> None:
    """When the run starts, and by whoever builds the model."""
    spoil, words = BROKEN[case]
    folder = save_model(tmp_path / "model", "llama")
    refuse_unfit_model(TrainConfig.model_validate(tiny_config(text, model={"path": str(folder)})))
    spoil(folder)
    config = TrainConfig.model_validate(tiny_config(text, model={"path": str(folder)}))
    for look in (lambda: refuse_unfit_model(config), lambda: build_model(config.model, VOCABULARY, 0, 64, 0.0, 0)):
        with pytest.raises(ConfigError) as caught:
            look()
        assert str(caught.value).startswith(f"config.model.path={folder}: {words}")
        assert "\n" not in str(caught.value)


def test_an_unknown_family_is_told_at_the_start(text: Path, tmp_path: Path) -> None:
    """It costs one small file to know."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    config = TrainConfig.model_validate(tiny_config(text, model={"path": str(tmp_path)}))
    with pytest.raises(ConfigError, match="model_type=t5; this version trains falcon"):
        refuse_unfit_model(config)


def test_storage_that_fails_is_no_mistake_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that does not answer may answer the next attempt: only what a retry cannot mend is refused."""
    folder = save_model(tmp_path, "llama")

    def fails(path: Path) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "is_file", fails)
    with pytest.raises(OSError, match="Input/output error"):
        build_model(ModelConfig(path=str(folder)), VOCABULARY, 0, 64, 0.0, 0)


def test_hashing_pickles_says_the_same(tmp_path: Path) -> None:
    """A run of several stages hashes the models that it names before it trains."""
    pickle_only(save_model(tmp_path, "llama"))
    with pytest.raises(ConfigError, match=r"^config\.model\.path=x: its weights are pickled \(pytorch_model\.bin\)"):
        base_hash(tmp_path, "config.model.path=x")


def test_a_run_on_pickles_ends_with_20_and_prepares_nothing(text: Path, tmp_path: Path) -> None:
    """All ranks have the same sentence, no text was read, and nothing is retried."""
    folder = save_model(tmp_path / "model", "llama")
    pickle_only(folder)
    site = Site(text, tmp_path, {"model": {"path": str(folder)}})
    ended = site.run(2)
    assert "its weights are pickled" in only_code(ended, 20)["message"]
    assert len({one.outcome["message"] for one in ended if one.outcome}) == 1
    assert not (site.store / "data").exists() and not site.claims()
