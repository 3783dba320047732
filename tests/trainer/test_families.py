"""Each family: what keeps its documents apart, a strict load, and the way back to Hugging Face's format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from safetensors.torch import load_file, save_file
from trainrun_api.train_config import ModelConfig, TrainConfig
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.explain_step import open_run
from trainrun_trainer.export import whole_model
from trainrun_trainer.families import FAMILIES, by_mask, layers
from trainrun_trainer.loss import IGNORED
from trainrun_trainer.model import build_model, forward, refuse_if_documents_leak
from trainrun_trainer.model_fit import refuse_unfit_model
from trainrun_trainer.parallel import ParallelDims, parallelize
from trainrun_trainer.rows import Slot
from trainrun_trainer.step import slot_backward
from trainrun_trainer.storage import LocalDirectory

from tests.trainer.folders import MODELS, VOCABULARY, save_model
from tests.trainer.runs import Site, tiny_config

ALL = sorted(MODELS)
KINDS_OF_EACH_FAMILY = ["llama", "mistral", "gpt_neox", "falcon 40b", "mpt"]


def load(folder: Path, vocab_size: int = VOCABULARY, dropout: float = 0.0) -> Any:
    """As a run does."""
    return build_model(ModelConfig(path=str(folder)), vocab_size, 0, 64, dropout, 0)


@pytest.mark.parametrize("kind", ALL)
def test_a_folder_comes_back_bit_equal(tmp_path: Path, kind: str) -> None:
    """S0-10, S1-13: names, shapes and bytes of all tensors; the configuration still builds the same model."""
    folder = save_model(tmp_path, kind)
    model = load(folder)
    shards = parallelize(model, ParallelDims(1, 1), torch.device("cpu"))
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    content = whole_model(model, shards, tokenizer, 100_000)
    assert len(content.tensor_files) > 1
    found = {name: shard.whole.detach() for file in content.tensor_files for name, shard in file.tensors}
    expected = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    config = json.loads(content.texts["config.json"])
    assert config["architectures"] == [FAMILIES[MODELS[kind][0]].model_class]
    assert config["model_type"] == MODELS[kind][0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ALL)
def test_documents_of_a_row_are_apart(tmp_path: Path, kind: str, precision: torch.dtype) -> None:
    """The check of the setup passes; and another first document changes no logit of the second, in bf16 neither."""
    model = load(save_model(tmp_path, kind))
    for device in ("cpu", "cuda"):
        refuse_if_documents_leak(model, VOCABULARY, torch.device(device))
    model.eval()
    places = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]])
    tokens = torch.arange(12)[None] + 20
    other = torch.cat([tokens[:, :6] + 500, tokens[:, 6:]], 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        one, two = forward(model, tokens, places), forward(model, other, places)
    assert torch.equal(one[:, 6:], two[:, 6:])
    assert not torch.allclose(one[:, :6], two[:, :6])


@pytest.mark.parametrize("learned", [[], [0], [2, 3, 9]], ids=["none", "one", "some"])
@pytest.mark.parametrize("kind", ALL)
def test_the_output_layer_computes_only_what_is_learned(tmp_path: Path, kind: str, learned: list[int]) -> None:
    """Loss and every gradient are those of all positions, and the layer is left as it was."""
    model = load(save_model(tmp_path, kind))
    tokens, places = torch.arange(12).reshape(2, 6) + 20, torch.arange(6).expand(2, 6)
    targets = torch.full((2, 6), IGNORED)
    targets.view(-1)[learned] = tokens.flatten()[learned] + 1
    whole = Slot(tokens, targets, places, 0)
    heads: list[tuple[int, ...]] = []
    watch = model.get_output_embeddings().register_forward_hook(lambda layer, inputs, out: heads.append(out.shape))

    def run(slot: Slot) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        loss = slot_backward(model, slot, 3, "fp32")
        return loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = run(whole)
    found = run(replace(whole, learned=torch.tensor(learned, dtype=torch.int64)))
    torch.testing.assert_close(found, expected)
    assert [shape[:-1] for shape in heads] == [(2, 6), (len(learned),)]
    watch.remove()
    assert forward(model, tokens, places).shape[:2] == (2, 6)


@pytest.mark.parametrize("kind", ["falcon 7b", "falcon 40b", "mpt"])
def test_positions_alone_would_let_documents_leak(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So would a mask of booleans on MPT; the check finds both, and names how much."""
    family = FAMILIES[MODELS[kind][0]]
    model = load(save_model(tmp_path, kind))

    def by_positions(position_ids: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
        return {"position_ids": position_ids}

    def by_booleans(position_ids: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
        return {"attention_mask": by_mask(position_ids, device)["attention_mask"] == 0}

    for wrong in [by_positions] + [by_booleans] * (kind == "mpt"):
        monkeypatch.setitem(FAMILIES, MODELS[kind][0], replace(family, isolation=wrong))
        with pytest.raises(ConfigError, match=rf"{family.model_class} lets packed documents see each other"):
            refuse_if_documents_leak(model, VOCABULARY, torch.device("cpu"))


def test_a_falcon_with_alibi_is_refused(tmp_path: Path) -> None:
    """It takes no mask of documents."""
    with pytest.raises(ConfigError, match=r"a falcon with alibi=true cannot .* use a falcon with rotary positions"):
        load(save_model(tmp_path, "falcon 7b", alibi=True))


def test_another_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """Before any tensor is read."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ConfigError, match="model_type=t5; this version trains falcon, gpt_neox, llama, mistral, mpt"):
        load(tmp_path)


@pytest.mark.parametrize("kind", KINDS_OF_EACH_FAMILY)
def test_every_key_must_match(tmp_path: Path, kind: str) -> None:
    """A tensor too few, one too many and one of another shape are named."""
    folder = save_model(tmp_path, kind)
    tensors = load_file(folder / "model.safetensors")
    norm = next(name for name in sorted(tensors) if re.search(r"norm|\.ln_", name) and name.endswith("weight"))
    for changed in (
        {name: tensor for name, tensor in tensors.items() if name != norm},
        {**tensors, "extra.weight": torch.zeros(2)},
        {**tensors, norm: torch.zeros(3)},
    ):
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ConfigError, match=rf"its tensors are not the model's: .*({norm}|extra\.weight)"):
            load(folder)


def test_dropout_is_where_the_family_keeps_it(tmp_path: Path) -> None:
    """And refused where attention would ignore it."""
    for kind in ("llama", "gpt_neox"):
        model = load(save_model(tmp_path / kind, kind), dropout=0.5)
        torch.manual_seed(0)
        first, second = (forward(model, torch.arange(8)[None], torch.arange(8)[None]) for _ in range(2))
        assert not torch.equal(first, second), kind
    for kind in ("falcon 7b", "mpt"):
        with pytest.raises(ConfigError, match=r"config\.dropout=0\.5: the attention of config\.model\.path=.* use 0"):
            load(save_model(tmp_path / kind, kind), dropout=0.5)


def test_the_context_of_mpt_has_its_own_name(text: Path, tmp_path: Path) -> None:
    """A longer row would fail in the first step."""
    folder = save_model(tmp_path, "mpt", max_seq_len=32)
    config = TrainConfig.model_validate(tiny_config(text, model={"path": str(folder)}))
    with pytest.raises(ConfigError, match=r"row_tokens=48 is longer .*\(max_seq_len=32\); use 32 or less"):
        refuse_unfit_model(config)


@pytest.mark.parametrize("kind", ALL)
def test_layers_are_found(tmp_path: Path, kind: str) -> None:
    """What is sharded and recomputed."""
    assert len(layers(load(save_model(tmp_path, kind)))) == 2


@pytest.mark.parametrize("kind", ["falcon 40b", "mpt"])
def test_a_run_on_two_ranks(text: Path, tmp_path: Path, kind: str) -> None:
    """Sharded by the family's layers: the loss is the folder's own over the documents; the export is better."""
    folder = save_model(tmp_path / "base", kind)
    changes = {"model": {"path": str(folder)}, "total_steps": 3, "eval": None}
    site = Site(text, tmp_path, changes, {"interval": 3, "keepLast": 10})
    site.finish(2)
    run = open_run(LocalDirectory(site.store))
    slots = [run.rows.slot(1, slot) for slot in range(12)]

    def mean_loss(path: Path) -> float:
        model = load(path)
        with torch.no_grad():
            sums = [
                F.cross_entropy(
                    forward(model, s.input_ids, s.position_ids).flatten(0, 1), s.targets.flatten(), reduction="sum"
                )
                for s in slots
            ]
        return float(sum(sums)) / run.rows.num_targets(1)

    first = float.fromhex(site.losses()[1])
    assert first == pytest.approx(mean_loss(folder), abs=1e-5)
    assert mean_loss(site.store / "export") < first
