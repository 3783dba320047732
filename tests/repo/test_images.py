"""The Dockerfiles keep the rules that a registry's scanner would ask for, and find what they copy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from trainrun_api.contract import AGENT_PORT
from trainrun_operator.core.pod import AGENT_ZIPAPP, UNPRIVILEGED_ID

ROOT = Path(__file__).resolve().parents[2]
FILES = ["Dockerfile.operator", "Dockerfile.trainer"]
LOCKED = set((ROOT / "requirements.lock").read_text().split())
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()

PRINT_IMPORTED = """
import json, sys, importlib.metadata as metadata
before = set(sys.modules)  # what this environment's .pth files brought
import trainrun_operator.__main__
owners = metadata.packages_distributions()
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted({owner for top in tops for owner in owners.get(top, ())})))
"""


def instructions(name: str) -> list[tuple[str, str]]:
    """(word, rest) of each instruction, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def of(name: str, word: str) -> list[str]:
    return [rest for found, rest in instructions(name) if found == word]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", FILES)
def test_base_is_an_argument_with_a_version(name: str) -> None:
    """Every stage stands on it; nothing is fetched but through a package manager."""
    assert of(name, "ARG")[0].startswith("BASE=")
    stages = {rest.partition(" AS ")[2] for rest in of(name, "FROM")} - {""}
    assert {rest.split()[0] for rest in of(name, "FROM")} - stages == {"${BASE}"}
    text = (ROOT / name).read_text()
    assert "latest" not in text
    assert not of(name, "ADD")
    assert not re.search(r"https?://|curl|wget|git clone", text)


@pytest.mark.parametrize(
    ("name", "user"), [(FILES[0], 10001), (FILES[1], UNPRIVILEGED_ID)], ids=["operator", "trainer"]
)
def test_user_is_a_number_and_not_root(name: str, user: int) -> None:
    """runAsNonRoot can judge numbers only; the last word counts."""
    assert of(name, "USER")[-1] == f"{user}:{user}"


@pytest.mark.parametrize("name", FILES)
def test_labels_say_version_and_revision(name: str) -> None:
    """From build arguments."""
    (labels,) = of(name, "LABEL")
    for label in ("version", "revision"):
        assert f'org.opencontainers.image.{label}="${{{label.upper()}}}"' in labels


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    """.dockerignore lets in what is named, and nothing else."""
    assert IGNORED[1] == "*"
    for rest in of(name, "COPY"):
        if not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(f"!{allowed}" in IGNORED for allowed in (source, str(Path(source).parent))), source


def test_entry_points_are_the_programs_that_pods_start() -> None:
    """Operator, agent, and the agent as one file where the operator looks for it."""
    assert json.loads(of(FILES[0], "ENTRYPOINT")[0]) == ["python", "-m", "trainrun_operator"]
    assert json.loads(of(FILES[1], "ENTRYPOINT")[0]) == ["python3", "-m", "trainrun_trainer.agent"]
    assert f"--from=agent {AGENT_ZIPAPP} {AGENT_ZIPAPP}" in of(FILES[1], "COPY")
    assert of(FILES[1], "EXPOSE") == [str(AGENT_PORT)]


@pytest.mark.parametrize("part", ["requirements-operator.txt", "requirements-torch.txt", "requirements-trainer.txt"])
def test_images_get_the_tested_versions(part: str) -> None:
    """Each line is one of the lock's."""
    assert set((ROOT / part).read_text().split()) <= LOCKED


def test_trainer_list_leaves_torch_to_the_base() -> None:
    """Nor does it hold what only torch needs, which would shadow the base's."""
    names = {line.partition("==")[0] for line in (ROOT / "requirements-trainer.txt").read_text().split()}
    assert not {n for n in names if n.startswith(("torch", "triton", "cuda", "nvidia")) and n != "nvidia-ml-py"}


TAKEN_IF_THERE = {"blinker", "brotli"}
"""oauthlib and urllib3 do; here a test's server and the reader of HTML bring them."""


def test_operator_image_holds_all_that_the_operator_imports() -> None:
    """Its list is made by hand; an import that it lacks would end the pod at its start."""
    done = subprocess.run([sys.executable, "-c", PRINT_IMPORTED], capture_output=True, text=True, check=True)
    imported = {canonical(name) for name in json.loads(done.stdout)} - {"trainrun"} - TAKEN_IF_THERE
    listed = {canonical(line.partition("==")[0]) for line in (ROOT / "requirements-operator.txt").read_text().split()}
    assert imported <= listed
