"""A checkpoint as a model folder: bit-equal, with an index, without the optimizer, and nothing that does not count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainrun_api.stage_config import ConsolidateConfig
from trainrun_trainer.consolidate import kept, main, run
from trainrun_trainer.errors import NoUsableCheckpoint
from trainrun_trainer.stores import open_storage
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.folders import save_model
from tests.trainer.memory import peak_kib
from tests.trainer.runs import Site


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def test_two_ranks_pieces_become_the_export(undisturbed: Callable[[int], Site], tmp_path: Path) -> None:
    """The last checkpoint is the export's state: equal bit for bit, in several files, with equal settings."""
    site = undisturbed(2)
    assert len(list((site.store / "step-12-c1").glob("*.safetensors"))) > 1
    made = run(ConsolidateConfig(max_shard_bytes=200_000), {"checkpoint": str(site.store), "out": str(tmp_path / "m")})
    assert (made["step"], made["tokens"]) == (12, 12 * 12 * 48)
    ours, exported = tensors(tmp_path / "m"), tensors(site.store / "export")
    assert ours.keys() == exported.keys()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in ours.items())
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1 and index["weight_map"].keys() == ours.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in ours.values())
    settings = [json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "m", site.store / "export")]
    assert settings[0] == settings[1]
    lineages = [json.loads((f / "lineage.json").read_text()) for f in (tmp_path / "m", site.store / "export")]
    assert {lineages[0][key] == lineages[1][key] for key in ("state_digest", "data_hash", "run_uid", "config")} == {
        True
    }
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    words = AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = words("In the beginning", return_tensors="pt")["input_ids"]
    other = AutoModelForCausalLM.from_pretrained(site.store / "export")
    assert torch.equal(model(ids).logits, other(ids).logits)


def test_tensors_have_the_names_of_the_familys_files(text: Path, tmp_path: Path) -> None:
    """GPT-NeoX has another one for its head in files than in the model; equal to the export, bit for bit."""
    folder = save_model(tmp_path / "base", "gpt_neox")
    changes = {"model": {"path": str(folder)}, "total_steps": 3, "eval": None}
    site = Site(text, tmp_path, changes, {"interval": 3, "keepLast": 10})
    site.finish(1)
    run(ConsolidateConfig(), {"checkpoint": str(site.store), "out": str(tmp_path / "m")})
    ours, exported = tensors(tmp_path / "m"), tensors(site.store / "export")
    assert "embed_out.weight" in ours and ours.keys() == exported.keys()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in ours.items())


def test_older_steps_can_be_had_and_missing_ones_are_named(
    undisturbed: Callable[[int], Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step once; a second call makes nothing new."""
    store = str(undisturbed(2).store)
    assert [manifest["step"] for manifest in kept(open_storage(store))] == [0, 4, 8, 12]
    main([store, str(tmp_path / "m"), "--step", "4"])
    assert capsys.readouterr().out == f"{tmp_path}/m: step 4, {4 * 12 * 48} tokens trained, 1 files\n"
    first = tensors(tmp_path / "m")
    assert not torch.equal(first["model.norm.weight"], tensors(Path(store) / "export")["model.norm.weight"])
    before = (tmp_path / "m" / "config.json").stat().st_ino
    main([store, str(tmp_path / "m"), "--step", "4"])
    assert (tmp_path / "m" / "config.json").stat().st_ino == before
    with pytest.raises(SystemExit) as ended:
        main([store, str(tmp_path / "no"), "--step", "5"])
    assert str(ended.value) == f"{store}: no checkpoint of step 5; there are [0, 4, 8, 12]"


def test_a_flipped_bit_is_no_model(undisturbed: Callable[[int], Site], tmp_path: Path) -> None:
    """safetensors would load it without a word."""
    store = tmp_path / "store"
    source = undisturbed(2).store
    for path in source.rglob("*"):
        if path.is_file() and path.relative_to(source).parts[0] in ("claims", "data", "step-12-c1"):
            target = store / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    file = sorted((store / "step-12-c1").glob("*.safetensors"))[0]
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)
    with pytest.raises(NoUsableCheckpoint, match=r"is not what was written: .*; name another step"):
        run(ConsolidateConfig(), {"checkpoint": str(store), "out": str(tmp_path / "m")})
    assert not list(tmp_path.glob("*m"))


CONSOLIDATED = """
from trainrun_trainer.consolidate import Pieces
from trainrun_trainer.model_folder import write_tensors

def work(size):
    pieces = Pieces(root / size)
    (root / f"{size}-out").mkdir()
    write_tensors(root / f"{size}-out", pieces.entries(), pieces.read, 1_000_000_000)
"""


def test_memory_is_a_few_tensors_whatever_the_models_size(tmp_path: Path) -> None:
    """160 MB in tensors of 4 MB into one file: less than 40 MB more than after a small one."""
    for size, count in (("small", 1), ("large", 40)):
        (tmp_path / size).mkdir()
        torch.manual_seed(0)
        whole = {f"model.layer{i:02}": torch.randn(1024, 1024) for i in range(count)}
        save_file(whole, tmp_path / size / "shard-00001.safetensors")
    assert peak_kib(CONSOLIDATED, tmp_path) < 40_000
    written = load_file(tmp_path / "large-out" / "model-00001-of-00001.safetensors")
    assert all(torch.equal(written[name.removeprefix("model.")], tensor) for name, tensor in whole.items())
