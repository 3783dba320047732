"""For runs that nobody wrote by hand: the models lose nothing, and Python and CEL never disagree."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from trainrun_api.v1alpha1 import TrainingRun
from trainrun_api.validate import validate, validate_update

from tests.api import cel
from tests.api.manifests import good, merged

small = st.integers(0, 6)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or null: the field is left out."""
    return st.none() | values


workers = st.fixed_dictionaries(
    {
        "replicas": st.integers(-1, 6),
        "devicesPerWorker": maybe(st.integers(1, 4)),
        "minReplicas": maybe(st.integers(1, 4)),
        "spares": maybe(small),
    }
)
architecture = st.fixed_dictionaries(
    {
        "hidden_size": maybe(st.integers(8, 70)),
        "num_attention_heads": maybe(st.integers(1, 9)),
        "num_key_value_heads": maybe(st.integers(1, 9)),
    }
)
parallel = st.fixed_dictionaries(
    {"dp_replicate": maybe(st.integers(1, 4)), "dp_shard": maybe(st.integers(1, 6)), "tp": maybe(st.integers(1, 3))}
)
config = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries({"architecture": architecture, "path": maybe(st.just("/models/a"))}),
        "global_batch_rows": st.integers(1, 48),
        "micro_batch_rows": maybe(st.integers(1, 4)),
        "schedule": maybe(st.fixed_dictionaries({"warmup_steps": maybe(st.integers(0, 300))})),
        "parallel": parallel,
    }
)
intervals = st.integers(-2, 5) | st.sampled_from(["auto", "", "1s", "01m", "10h", "5", "1.5h", "1d", "%s", "a'b"])
paths = st.sampled_from(["/a", "//a", "file:///a", "s3://ab/c", "s3://", "s3://abc", "S3://abc/d", "a b", "/a b"])
resume = st.fixed_dictionaries(
    {
        "from": maybe(st.sampled_from(["Latest", "Never", "Step", "Run"])),
        "step": maybe(small),
        "run": maybe(st.just("other")),
    }
)
spec = st.fixed_dictionaries(
    {
        "workers": workers,
        "config": config,
        "checkpoint": st.fixed_dictionaries({"interval": intervals, "path": paths}),
        "resume": maybe(resume),
    }
)
patches = spec.map(lambda spec: {"spec": spec})


@settings(max_examples=100, deadline=None)
@given(patch=patches)
def test_python_and_cel_agree(patch: dict[str, Any]) -> None:
    """Same sentences for any mix of broken rules; the runs are structurally sound by construction."""
    manifest = without_nulls(merged(good(), patch))
    assert sorted(p.message for p in validate(manifest)) == sorted(sentence for _, sentence in cel.verdict(manifest))


@settings(max_examples=80, deadline=None)
@given(before=patches, after=patches)
def test_updates_agree_too(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Immutable fields: the same verdict on any pair of versions."""
    old, new = (without_nulls(merged(good(), patch)) for patch in (before, after))
    expected = sorted(sentence for _, sentence in cel.verdict(new, old))
    assert sorted(p.message for p in validate_update(old, new)) == expected


@settings(max_examples=100, deadline=None)
@given(patch=patches)
def test_models_lose_nothing(patch: dict[str, Any]) -> None:
    """A manifest that went through the models and back gets the same verdict, and stays the same run."""
    manifest = without_nulls(merged(good(), patch))
    run = TrainingRun.model_validate(manifest)
    back = run.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert back == manifest
    assert validate(back) == validate(manifest)
    assert TrainingRun.model_validate(run.model_dump(by_alias=True, mode="json")) == run


def without_nulls(value: Any) -> Any:
    """As the API server stores it."""
    if isinstance(value, dict):
        return {name: without_nulls(child) for name, child in value.items() if child is not None}
    return value
