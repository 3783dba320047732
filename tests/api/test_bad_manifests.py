"""Each bad manifest gets its sentence, from `trainrun validate` and from the CRD's CEL rules alike."""

from __future__ import annotations

import pytest
from trainrun_api.data_config import ROW_TOKENS
from trainrun_api.rules import RULES
from trainrun_api.structure import parse
from trainrun_api.v1alpha1 import TrainingRun
from trainrun_api.validate import Problem, validate, validate_update

from tests.api import cel
from tests.api.manifests import Case, cases, good, merged

CASES = cases()
BY_CEL = [case for case in CASES if case.says == "cel"]


def problems_of(case: Case) -> list[Problem]:
    if case.before is None:
        return validate(case.manifest)
    return validate_update(case.before, case.manifest)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_validate_says_the_sentence(case: Case) -> None:
    """The first problem is the expected one; further ones are named in the table."""
    problems = problems_of(case)
    assert problems, "not refused"
    assert (problems[0].path, problems[0].message) == (case.path, case.sentence)
    assert [problem.rule for problem in problems] == [case.rule, *case.also]


@pytest.mark.parametrize("case", BY_CEL, ids=lambda case: case.id)
def test_cel_says_what_validate_says(case: Case) -> None:
    """Both name the same broken rules with the same sentences."""
    said = cel.verdict(case.manifest, case.before)
    assert sorted(sentence for _, sentence in said) == sorted(p.message for p in problems_of(case))
    assert (case.path, case.sentence) in said


def test_good_manifest_is_taken_by_both() -> None:
    """The table's starting point breaks nothing, new or as an update of itself."""
    assert validate(good()) == []
    assert validate_update(good(), good()) == []
    assert cel.verdict(good(), good()) == []


def test_rows_have_a_usual_length() -> None:
    """Nothing needs to be said of it."""
    manifest = merged(good(), {"spec": {"config": {"data": {"row_tokens": None}}}})
    assert validate(manifest) == []
    assert cel.verdict(manifest) == []
    run = parse(manifest)
    assert isinstance(run, TrainingRun) and run.spec.config is not None
    assert run.spec.config.data.row_tokens == ROW_TOKENS == 4096


def test_every_rule_has_a_case_in_the_table() -> None:
    """A rule without a bad manifest is a rule that nobody has seen speak."""
    assert {case.rule for case in BY_CEL} == {rule.id for rule in RULES}


def test_ids_are_unique() -> None:
    """Cases and rules are named in reports and docs."""
    for ids in ([case.id for case in CASES], [rule.id for rule in RULES]):
        assert len(ids) == len(set(ids))


def test_not_yet_available_comes_last() -> None:
    """A contradiction is said before the news that the field does nothing yet."""
    manifest = merged(
        good(),
        {
            "spec": {
                "workers": {"minReplicas": 5},
                "health": {"nodeRepair": "Reboot"},
                "stages": [{"name": "a", "kind": "precompile"}] * 2,
            }
        },
    )
    kinds = [problem.kind for problem in validate(manifest)]
    assert kinds == sorted(kinds) == ["cross", "cross", "later", "later"]


FINE = {
    "s3": {"spec": {"checkpoint": {"path": "s3://bucket/prefix"}}},
    "file-url": {"spec": {"checkpoint": {"path": "file:///shared/run"}}},
    "interval-auto": {"spec": {"checkpoint": {"interval": "auto"}}},
    "interval-duration": {"spec": {"checkpoint": {"interval": "10m"}}},
    "stall-seconds": {"spec": {"health": {"stallTimeoutSeconds": 90}}},
    "resume-step": {"spec": {"resume": {"from": "Step", "step": 0}}},
    "own-program": {"spec": {"config": None, "command": ["train.py"]}},
    "one-train-stage": {"spec": {"stages": [{"name": "all", "kind": "train"}]}},
    "sidecar": {
        "spec": {
            "workers": {
                "template": {"spec": {"containers": [{"name": "logs", "image": "x", "env": [{"name": "RANK"}]}]}}
            }
        }
    },
    "pod-fields": {"spec": {"workers": {"template": {"spec": {"tolerations": [{"key": "x"}], "hostIPC": True}}}}},
    "scaled": {"spec": {"workers": {"replicas": 4}}},
    "fewer-workers": {"spec": {"workers": {"replicas": 4, "minReplicas": 2}}},
    "fewer-workers-but-not-three": {"spec": {"workers": {"replicas": 4, "minReplicas": 1}}},
    "no-fewer-workers": {"spec": {"workers": {"minReplicas": 2}, "config": {"parallel": {"dp_shard": 2}}}},
    "own-program-on-fewer": {
        "spec": {"config": None, "command": ["train.py"], "workers": {"replicas": 4, "minReplicas": 3}}
    },
    "longer": {"spec": {"config": {"total_steps": 400}}},
    "time-limit": {"spec": {"maxAttemptSeconds": 600}},
    "name-of-45": {"metadata": {"name": "a" * 45}},
}


@pytest.mark.parametrize("patch", FINE.values(), ids=FINE.keys())
def test_valid_variants_are_taken_by_both(patch: dict) -> None:
    """The rules do not refuse what is fine."""
    manifest = merged(good(), patch)
    assert validate(manifest) == []
    assert cel.verdict(manifest) == []


def test_null_counts_as_absent() -> None:
    """The API server drops nulls before it validates; so does validate."""
    manifest = good()
    manifest["spec"]["resume"] = {"from": "Latest", "step": None, "run": None}
    manifest["spec"]["suspend"] = None
    assert validate(manifest) == []
