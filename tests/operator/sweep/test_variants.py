"""A sweep's runs (S0-02): every combination once, each a run of its own; what cannot be swept is told in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from trainrun_operator.sweep.variants import Axis, BadSweep, make_variants, parse_axis

from tests.api.manifests import good


def test_values_are_what_yaml_makes_of_them() -> None:
    """Numbers, words, lists; `spec.` may stand before the field."""
    assert parse_axis("config.data.mix.general=0,0.01,0.05").values == (0, 0.01, 0.05)
    assert parse_axis("spec.config.precision=fp32,bf16") == Axis("config.precision", ("fp32", "bf16"))
    assert parse_axis("workers.template.spec.args=[a, b],[c]").values == (["a", "b"], ["c"])


def test_every_combination_is_a_run_of_its_own() -> None:
    """Names and checkpoint paths differ, the last axis changes fastest, and the manifest itself stays as it is."""
    manifest = good()
    before = repr(manifest)
    runs = make_variants(manifest, [Axis("config.seed", (1, 2)), Axis("config.data.mix.general", (0, 0.5))])
    assert [run.values for run in runs] == [(1, 0), (1, 0.5), (2, 0), (2, 0.5)]
    assert [run.name for run in runs] == [f"{manifest['metadata']['name']}-{number}" for number in range(4)]
    assert len({run.manifest["spec"]["checkpoint"]["path"] for run in runs}) == 4
    assert [run.manifest["spec"]["config"]["seed"] for run in runs] == [1, 1, 2, 2]
    assert runs[1].manifest["spec"]["config"]["data"]["mix"]["general"] == 0.5
    assert repr(manifest) == before


def chain() -> dict[str, Any]:
    """A manifest of two stages."""
    stages = [{"name": "base", "kind": "train"}, {"name": "cpt", "kind": "train", "config": {"total_steps": 3}}]
    return {**good(), "spec": {**good()["spec"], "image": "registry.example/x", "stages": stages}}


def test_fields_of_a_stage_are_swept_by_its_name() -> None:
    """Also one that the stage does not have yet; the other stages stay."""
    axes = [Axis("stages.cpt.config.data.mix.general", (0, 0.01)), Axis("stages.base.config.total_steps", (5,))]
    runs = make_variants(chain(), axes)
    assert [run.manifest["spec"]["stages"][1]["config"] for run in runs] == [
        {"total_steps": 3, "data": {"mix": {"general": share}}} for share in (0, 0.01)
    ]
    assert runs[1].manifest["spec"]["stages"][0] == {"name": "base", "kind": "train", "config": {"total_steps": 5}}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("config.seed", "is no field with values"),
        ("=1,2", "is no field with values"),
        ("config..seed=1", "is no field with values"),
        ("config.seed=", "has no values"),
        ("config.seed=1,,2", "has no values"),
        ("config.seed=[", "has no values"),
        ("config.seed=1,2,1", "config.seed=1,2,1 has a value twice"),
        ("checkpoint.path=/a,/b", "every run of a sweep gets its own"),
    ],
)
def test_an_axis_that_is_none_is_told(words: str, sentence: str) -> None:
    """With what was written."""
    with pytest.raises(BadSweep, match="--over"):
        parse_axis(words)
    with pytest.raises(BadSweep) as error:
        parse_axis(words)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ([Axis("config.seed", (1,)), Axis("config.seed", (2,))], "config.seed is given twice"),
        ([Axis("config.seed", tuple(range(65)))], "make 65 runs; a sweep has at most 64"),
        ([Axis("image.tag", (1,))], "spec.image is 'registry"),
        (
            [Axis("stages.ctp.config.seed", (1,))],
            "--over stages.ctp.config.seed: spec.stages.ctp is not there; spec.stages has: base, cpt",
        ),
        ([Axis("stages.cpt", (1,))], "write the field of cpt that is swept, stages.cpt.FIELD=..."),
    ],
)
def test_what_cannot_be_combined_is_told(axes: list[Axis], sentence: str) -> None:
    """Before anything is written."""
    with pytest.raises(BadSweep) as error:
        make_variants(chain(), axes)
    assert sentence in str(error.value)
