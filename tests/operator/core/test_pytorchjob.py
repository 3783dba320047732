"""A run becomes the PyTorchJob that training-operator 1.7 and 1.9, Kueue and HyperPod can all live with."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubeflow.training import models
from kubeflow.training.api_client import ApiClient
from trainrun_api.contract import Env
from trainrun_api.rules.workers import AUTO_RESUME
from trainrun_api.stages import spec_of
from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import CheckpointSpec, TrainingRunSpec
from trainrun_operator.core.instances import INSTANCES, device_resources
from trainrun_operator.core.merge import overlay
from trainrun_operator.core.placement import HEALTH_KEY, with_placement
from trainrun_operator.core.pod import PEERS_LIMIT_BYTES, own_program
from trainrun_operator.core.pytorchjob import render

from tests.operator.golden_files import Golden, load_all

GOLDENS = {golden.name: golden for golden in load_all()}
every_golden = pytest.mark.parametrize("golden", GOLDENS.values(), ids=GOLDENS.keys())


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]


def trainer_of(job: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in pod_of(job)["containers"] if c["name"] == "pytorch")


def env_of(job: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in trainer_of(job)["env"]}


@every_golden
def test_golden_file(golden: Golden) -> None:
    """Any change of what is rendered shows as a diff of a file that a person can read."""
    assert golden.job_file.read_text(encoding="utf-8") == golden.as_text()


@every_golden
def test_kubeflow_models_take_every_field(golden: Golden) -> None:
    """Nothing is misspelt: read into training-operator's own models and written out, the job is the same."""
    client = ApiClient()
    rendered = golden.rendered()
    model = client.deserialize(SimpleNamespace(data=json.dumps(rendered)), "KubeflowOrgV1PyTorchJob")
    assert isinstance(model, models.KubeflowOrgV1PyTorchJob)
    assert client.sanitize_for_serialization(model) == rendered


@every_golden
def test_shape_of_an_attempt(golden: Golden) -> None:
    """Worker-only, elastic with a fixed size, never restarted by anybody but us, never suspended by us."""
    job = golden.rendered()
    spec = job["spec"]
    assert job["metadata"]["name"] == f"{golden.run['metadata']['name']}-a{golden.attempt}"
    assert set(spec["pytorchReplicaSpecs"]) == {"Worker"}
    assert spec["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "Never"
    assert spec["pytorchReplicaSpecs"]["Worker"]["replicas"] == golden.replicas
    policy = spec["elasticPolicy"]
    assert policy["minReplicas"] == policy["maxReplicas"] == golden.replicas
    assert policy["rdzvId"] == f"{golden.run['metadata']['uid']}-a{golden.attempt}"
    assert "maxRestarts" not in policy
    assert "nProcPerNode" not in policy  # the 1.9 webhook refuses it beside spec.nprocPerNode
    assert spec["runPolicy"] == {"cleanPodPolicy": "Running"}
    assert not any("auto-re" in key for key in job["metadata"]["annotations"])
    [owner] = job["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["blockOwnerDeletion"]) == (golden.run["metadata"]["uid"], False)


@every_golden
def test_hyperpods_auto_resume_is_never_asked_for(golden: Golden) -> None:
    """Nor its misspelling in a published sample: a second restarter would fight us for the pods. Also when the run
    itself carries them."""
    run = overlay(golden.run, {"metadata": {"annotations": dict.fromkeys(AUTO_RESUME, "true")}})
    text = json.dumps(replace(golden, run=run).rendered())
    assert not [key for key in AUTO_RESUME if key in text]


@every_golden
def test_the_trainer_can_read_what_it_is_told(golden: Golden) -> None:
    """Round trip through the contract's variables."""
    env, spec = env_of(golden.rendered()), golden.run["spec"]
    assert CheckpointSpec.model_validate({**json.loads(env[Env.CHECKPOINT]), "path": env[Env.CHECKPOINT_PATH]})
    assert json.loads(env[Env.RESUME])["from"] == spec.get("resume", {}).get("from", "Latest")
    of_stage = spec_of(TrainingRunSpec.model_validate(spec), golden.run.get("status", {}).get("stage", ""))
    if "config" in spec:
        assert TrainConfig.model_validate_json(env[Env.CONFIG]) == of_stage.config
    else:
        assert Env.CONFIG not in env
    assert len(env[Env.PEERS].split(",")) == golden.replicas
    assert env["PET_NPROC_PER_NODE"] == str(spec["workers"].get("devicesPerWorker", 1))
    names = [entry["name"] for entry in trainer_of(golden.rendered())["env"]]
    assert len(names) == len(set(names))


@every_golden
def test_every_node_term_excludes_bad_nodes(golden: Golden) -> None:
    """A term without the health expression or the exclusions would be a way around both."""
    required = pod_of(golden.rendered())["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    for term in required["nodeSelectorTerms"]:
        health = [e["operator"] for e in term["matchExpressions"] if e["key"] == HEALTH_KEY]
        assert health in (["DoesNotExist"], ["In"])
        for node in golden.excluded:
            assert {"key": "metadata.name", "operator": "NotIn", "values": [node]} in term["matchFields"]
        assert all(len(field["values"]) == 1 for field in term.get("matchFields", []))  # the API takes one


@given(
    terms=st.lists(st.lists(st.sampled_from("abcd"), max_size=3), max_size=4),
    excluded=st.lists(st.sampled_from(["n1", "n2", "n3"]), max_size=4),
    labels=st.dictionaries(st.sampled_from("abcd"), st.just("x"), max_size=4),
    health=st.sampled_from([None, "Schedulable", "Unschedulable", "SomethingNew"]),
    node=st.sampled_from(["n1", "n2", "n3", "n4"]),
)
def test_placement_means_what_it_says(
    terms: list[list[str]], excluded: list[str], labels: dict[str, str], health: str | None, node: str
) -> None:
    """A node is taken iff the user's own terms take it, it is healthy or unlabelled, and it is not excluded."""
    users = [{"matchExpressions": [{"key": key, "operator": "Exists"} for key in term]} for term in terms]
    spec = {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": users}}}
    }
    placed = with_placement(spec if terms else {}, excluded)
    all_labels = labels | ({HEALTH_KEY: health} if health else {})
    wanted = any(all(key in labels for key in term) for term in terms or [[]])
    assert takes(placed, node, all_labels) == (wanted and health in (None, "Schedulable") and node not in excluded)


def takes(pod_spec: dict[str, Any], node: str, labels: dict[str, str]) -> bool:
    """Kubernetes' meaning of required node terms: any term, all of its expressions."""
    required = pod_spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    holds = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, values: value is not None,
        "DoesNotExist": lambda value, values: value is None,
    }
    return any(
        all(holds[e["operator"]](labels.get(e["key"]), e.get("values")) for e in term["matchExpressions"])
        and all(holds[e["operator"]](node, e["values"]) for e in term.get("matchFields", []))
        for term in required["nodeSelectorTerms"]
    )


def test_kueue_labels_are_carried_and_others_are_not() -> None:
    """Job and pods carry the queue; the user's other labels stay on the run."""
    job = GOLDENS["cuda-p4d"].rendered()
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    for labels in (job["metadata"]["labels"], template["metadata"]["labels"]):
        assert labels["kueue.x-k8s.io/queue-name"] == "hyperpod-ns-research-localqueue"
        assert "team" not in labels


def test_identity_labels_win_over_the_template() -> None:
    """Rules refuse them in the template; a run stored before the rules existed cannot forge them either."""
    golden = GOLDENS["cpu"]
    run = json.loads(json.dumps(golden.run))
    run["spec"]["workers"]["template"] = {"metadata": {"labels": {"trainrun.dev/attempt": "99"}}}
    template = render(run, 0, [], 2)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    assert template["metadata"]["labels"]["trainrun.dev/attempt"] == "0"


def test_rendering_is_pure() -> None:
    """The run is not touched, and twice the same gives twice the same."""
    golden = GOLDENS["template"]
    before = json.dumps(golden.run)
    assert golden.rendered() == golden.rendered()
    assert json.dumps(golden.run) == before


def test_spares_are_pods_beyond_the_seats_and_stay_on_lost_nodes() -> None:
    """An eviction would be counted as a failure by training-operator, and end the job that goes on without the pod."""
    job = render(GOLDENS["cpu"].run, 0, [], 2, spares=1)["spec"]
    worker = job["pytorchReplicaSpecs"]["Worker"]
    assert (job["elasticPolicy"]["minReplicas"], job["elasticPolicy"]["maxReplicas"], worker["replicas"]) == (2, 2, 3)
    env = env_of(render(GOLDENS["cpu"].run, 0, [], 2, spares=1))
    assert (env[Env.REPLICAS], env[Env.SPARES], len(env[Env.PEERS].split(","))) == ("2", "1", 3)
    stays = {t["key"]: t["effect"] for t in worker["template"]["spec"]["tolerations"] if "tolerationSeconds" not in t}
    assert stays.items() >= {f"node.kubernetes.io/{c}": "NoExecute" for c in ("not-ready", "unreachable")}.items()


def test_peers_of_a_huge_gang_stay_below_the_limit_of_a_variable() -> None:
    """Linux refuses to start a process with a variable of 128 KiB; worker 0 and its neighbours are told."""
    peers = env_of(render(GOLDENS["cpu"].run, 0, [], 8192))[Env.PEERS]
    assert len(peers) <= PEERS_LIMIT_BYTES
    assert peers.startswith("small-a0-worker-0:8471,small-a0-worker-1:8471,")


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (["train.py", "--x"], ["torchrun", "train.py", "--x"]),
        (["-m", "pkg.train"], ["torchrun", "-m", "pkg.train"]),
        (["python", "train.py"], ["torchrun", "--no-python", "python", "train.py"]),
        (["./run.sh"], ["torchrun", "--no-python", "./run.sh"]),
        (["torchrun", "--max-restarts=0", "a.py"], ["torchrun", "--max-restarts=0", "a.py"]),
    ],
)
def test_own_program_runs_under_torchrun(command: list[str], argv: list[str]) -> None:
    """Scripts and modules directly, anything else as a program of its own."""
    assert own_program(command) == argv


@pytest.mark.parametrize(
    ("accelerator", "workers", "instance", "resources"),
    [
        ("cpu", 4, None, {}),
        ("cuda", 8, None, {"nvidia.com/gpu": 8}),
        ("cuda", 8, "ml.p5.48xlarge", {"nvidia.com/gpu": 8, "vpc.amazonaws.com/efa": 32}),
        ("cuda", 4, "ml.p5.48xlarge", {"nvidia.com/gpu": 4, "vpc.amazonaws.com/efa": 16}),
        ("cuda", 1, "ml.p4d.24xlarge", {"nvidia.com/gpu": 1}),
        ("cuda", 1, "ml.g5.xlarge", {"nvidia.com/gpu": 1}),
        ("cuda", 8, "ml.of-the-future", {"nvidia.com/gpu": 8}),
        ("cuda", 8, "ml.trn1.32xlarge", {"nvidia.com/gpu": 8}),
        ("neuron", 32, "ml.trn1.32xlarge", {"aws.amazon.com/neuron": 16, "vpc.amazonaws.com/efa": 8}),
        ("neuron", 3, "ml.trn1.32xlarge", {"aws.amazon.com/neuron": 2}),
        ("neuron", 2, None, {"aws.amazon.com/neuroncore": 2}),
    ],
)
def test_device_resources(accelerator: str, workers: int, instance: str | None, resources: dict[str, int]) -> None:
    """Whole nodes take all interfaces, parts of a node their share."""
    assert device_resources(accelerator, workers, instance) == resources


def test_instances_are_sound() -> None:
    """Names as HyperPod labels its nodes, and at least one device each."""
    for name, instance in INSTANCES.items():
        assert name.startswith("ml.")
        assert instance.workers >= instance.devices >= 1
        assert instance.accelerator in ("cuda", "neuron")


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        (
            {"tolerations": [{"key": "x"}]},
            {"tolerations": [{"key": "x"}, {"key": "y"}]},
            {"tolerations": [{"key": "x"}, {"key": "y"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {}}]},
            {"env": [{"name": "A", "valueFrom": {}}]},
        ),
        (
            {"containers": [{"name": "p", "env": [{"name": "A", "value": "1"}]}]},
            {"containers": [{"name": "q"}, {"name": "p", "env": [{"name": "B", "value": "2"}]}]},
            {
                "containers": [
                    {"name": "p", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                    {"name": "q"},
                ]
            },
        ),
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "hostPath": {}}]},
            {"volumes": [{"name": "v", "hostPath": {}}]},
        ),
        ({}, {"volumes": [{"name": "v"}]}, {"volumes": [{"name": "v"}]}),
    ],
)
def test_overlay(ours: dict[str, Any], theirs: dict[str, Any], merged: dict[str, Any]) -> None:
    """Maps deeply, containers inside, other named things as a whole, unnamed lists replaced."""
    before = json.dumps([ours, theirs])
    assert overlay(ours, theirs) == merged
    assert json.dumps([ours, theirs]) == before
