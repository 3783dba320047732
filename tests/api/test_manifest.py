"""A file that cannot be a TrainingRun is refused with one sentence, and YAML is read as kubectl reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainrun_api.manifest import SIZE_LIMIT_BYTES, ManifestError, load_manifest, parse_manifest
from trainrun_api.validate import validate_file

from tests.api.manifests import HERE

HEAD = "apiVersion: trainrun.dev/v1alpha1\nkind: TrainingRun\n"

BAD_TEXTS = {
    "empty": ("", "run.yaml is empty; give a manifest of kind TrainingRun"),
    "comments-only": ("# nothing\n---\n", "run.yaml is empty; give a manifest of kind TrainingRun"),
    "list": ("- a\n", "run.yaml holds no mapping; give a manifest of kind TrainingRun"),
    "two-documents": (f"{HEAD}---\n{HEAD}", "run.yaml has 2 documents; give one TrainingRun per file"),
    "other-kind": ("kind: PyTorchJob\n", "run.yaml has kind=PyTorchJob; use kind: TrainingRun"),
    "other-version": (
        "apiVersion: trainrun.dev/v1\nkind: TrainingRun\n",
        "run.yaml has apiVersion=trainrun.dev/v1; use apiVersion: trainrun.dev/v1alpha1",
    ),
    "key-twice": (
        f"{HEAD}spec:\n  workers: {{}}\n  image: a\n  workers: {{replicas: 2}}\n",
        "run.yaml is not valid YAML: line 6: the key 'workers' stands twice; correct that line",
    ),
    "key-as-boolean": (
        f"{HEAD}spec: {{on: true}}\n",
        "run.yaml is not valid YAML: line 3: the key True is read as bool, put it in quotes; correct that line",
    ),
    "bad-indentation": (
        f"{HEAD}spec:\n  image: a\n workers: b\n",
        "run.yaml is not valid YAML: line 5: expected <block end>, but found '<block mapping start>'; "
        "correct that line",
    ),
    "tab": (
        f"{HEAD}spec:\n\timage: a\n",
        "run.yaml is not valid YAML: line 4: found character '\\t' that cannot start any token; correct that line",
    ),
    "python-object": (
        f"{HEAD}spec: !!python/object/apply:os.getcwd []\n",
        "run.yaml is not valid YAML: line 3: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.getcwd'; correct that line",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_what_is_no_manifest_gets_a_sentence(text: str, sentence: str) -> None:
    """One sentence that names the file, the line where there is one, and what to do."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "run.yaml")
    assert caught.value.problem.message == sentence


def test_missing_file(tmp_path: Path) -> None:
    """The path is named as given."""
    path = tmp_path / "absent.yaml"
    [problem] = validate_file(path)
    assert problem.message == f"{path} cannot be read: No such file or directory; give the path of a manifest file"


def test_binary_file(tmp_path: Path) -> None:
    """A file that is no text is not parsed."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\xfe\x00\x01")
    [problem] = validate_file(path)
    assert problem.message == f"{path} is not UTF-8 text; give a YAML file"


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    """Nothing that etcd would refuse is parsed."""
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT_BYTES + 1)
    [problem] = validate_file(path)
    assert problem.message.startswith(f"{path} is larger than")


def test_good_file_has_no_problem() -> None:
    """The table's starting point, from its file."""
    assert validate_file(str(HERE / "good_manifest.yaml")) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E6", 1e6),
        ("-2e3", -2000.0),
        ("0.5", 0.5),
        ("12", 12),
        ("2026-11-22", "2026-11-22"),
        ("1e", "1e"),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text: str, value: object) -> None:
    """PyYAML alone takes 3e-4 for a string and a date for an object."""
    got = parse_manifest(f"{HEAD}spec: {{value: {text}}}\n", "run.yaml")["spec"]["value"]
    assert (type(got), got) == (type(value), value)


def test_example_files_are_valid() -> None:
    """Every example of the repository passes."""
    examples = sorted((HERE.parents[1] / "examples").glob("*/run*.yaml"))
    assert examples
    for example in examples:
        load_manifest(example)
        assert validate_file(example) == [], example
