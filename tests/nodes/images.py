"""The images of the nodes, made from nothing but Debian packages and the project's own Dockerfiles.

A base with Python by debootstrap; on it operator and trainer as their Dockerfiles say. A tag is a hash of everything
that went into the image. Layers are kept, so a changed source file costs seconds while a changed list of libraries
costs a download of torch. Buildah keeps its storage in the cache and touches no other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.controlplane.binaries import ensure
from tests.controlplane.control_plane import ROOT
from tests.nodes.machine import IMAGES, Unavailable, call

SUITE = "bookworm"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE_PACKAGES = "python3,python3-pip,ca-certificates"
NOT_NEEDED = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
BUILD_SECONDS = 1800
STORAGE = IMAGES / "buildah" / "storage"
EPOCH = 1_600_000_000
"""Time of every file that is copied into an image: a fresh checkout shall meet the layers of an older one."""

DEBOOTSTRAP = f"--variant=minbase --include={BASE_PACKAGES} {SUITE}"


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile and what it copies."""

    dockerfile: str
    inputs: tuple[str, ...]
    base: str = ""
    """Another recipe, whose image it begins with; empty: the Debian base."""
    target: str = ""
    """The stage of the Dockerfile; empty: the last one."""
    argument: str = ""
    """A build argument."""


LISTS = ("trainer/image/install.sh", "requirements-torch.txt", "requirements-trainer.txt")
TRAINER = (*LISTS, "api/trainrun_api", "trainer/trainrun_trainer")


RECIPES = {
    "operator": Recipe(
        "Dockerfile.operator", ("requirements-operator.txt", "api/trainrun_api", "operator/trainrun_operator")
    ),
    "trainer": Recipe("Dockerfile.trainer", TRAINER),
    # somebody else's: torch is there, and nothing of ours
    "program": Recipe("tests/nodes/program/Dockerfile", ("tests/nodes/program/train.py",), base="trainer"),
    # a base with torch, and the trainer on it, as on CUDA and on Neuron; of the libraries, which seldom change
    "libraries": Recipe("Dockerfile.trainer", LISTS, target="libraries"),
    "vendor": Recipe("tests/nodes/vendor/Dockerfile", LISTS[1:], base="libraries"),
    "on_cuda": Recipe("Dockerfile.trainer", TRAINER, base="vendor"),
    "on_neuron": Recipe("Dockerfile.trainer", TRAINER, base="vendor", argument="INSTALL_TORCH=never"),
}


@dataclass(frozen=True)
class Images:
    """Their names on the nodes."""

    pause: str
    operator: str
    trainer: str
    program: str
    """A user's own image, with a program for plain torchrun."""
    libraries: str
    vendor: str
    """Stands in for a vendor's image with torch."""
    on_cuda: str
    on_neuron: str

    def __iter__(self) -> Iterator[str]:
        """Those that nodes need."""
        return iter((self.pause, self.operator, self.trainer, self.program))


def ensure_images() -> Images:
    """Build whatever is missing; the caller holds the session's lock. Raises Unavailable, BuildError."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    buildah = Buildah(IMAGES / "buildah")
    base = _ensure_base(buildah)
    made: dict[str, str] = {}
    for name, recipe in RECIPES.items():
        made[name] = _ensure(buildah, made.get(recipe.base, base), name)
    return Images(pause=_ensure_pause(buildah), **made)


class Buildah:
    """Buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        storage, containers = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{STORAGE}"\nrunroot = "{folder}/run"\n')
        containers.write_text(
            '[containers]\ndefault_ulimits = []\n[engine]\nevents_logger = "file"\nruntime = "runc"\n'
        )
        # the machine's own pip may trust more than a plain Debian does, and so must the builds
        (folder / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n{_index()}root-user-action = ignore\n")
        self._env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
            "BUILDAH_ISOLATION": "oci",
            "TMPDIR": str(folder),
        }

    def run(self, *arguments: str) -> str:
        """One command of buildah. Raises Unavailable with its words."""
        # in a mount namespace of its own: whatever it mounts is gone with it
        command = ["nice", "-n", "10", "unshare", "--mount", "buildah", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=BUILD_SECONDS)
        if done.returncode != 0:
            raise Unavailable(f"buildah {arguments[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout.strip()

    def has(self, tag: str) -> bool:
        """Whether the image is in the storage."""
        return bool(self.run("images", "--quiet", "--filter", f"reference={tag}"))

    def build(self, tag: str, context: Path, *arguments: str) -> None:
        """An image by a Dockerfile; the network namespace is the machine's, so that nothing of it is changed."""
        mounts = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--volume={self._folder}/pip.conf:/etc/pip.conf:ro"]
        self.run(
            "bud", "--layers", "--network=host", "--runtime=runc", *mounts, f"--tag={tag}", *arguments, str(context)
        )


def _index() -> str:
    url = os.environ.get("PIP_INDEX_URL")
    return f"index-url = {url}\n" if url else ""


def _ensure_base(buildah: Buildah) -> str:
    tag = f"localhost/trainrun/base:{_digest(DEBOOTSTRAP)}"
    if not buildah.has(tag):
        with told("the base image (debootstrap)"), _folder() as folder:
            root = folder / "root"
            done = subprocess.run(
                ["nice", "-n", "10", "debootstrap", *DEBOOTSTRAP.split(), str(root), _mirror()],
                capture_output=True, text=True, timeout=BUILD_SECONDS,
            )  # fmt: skip
            if done.returncode != 0:
                raise Unavailable(f"debootstrap failed: {done.stdout[-1000:]}")
            for name in NOT_NEEDED:
                shutil.rmtree(root / name, ignore_errors=True)
            for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
                marker.unlink()  # as in the images that are made for Python
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            (root / "etc/pip.conf").touch()  # builds mount theirs over it
            # an archive, because a copied folder would lose its owners
            call("tar", "-C", str(root), "-cf", str(folder / "root.tar"), ".")
            shutil.rmtree(root)
            (folder / "Dockerfile").write_text('FROM scratch\nADD root.tar /\nENV LANG=C.UTF-8\nCMD ["python3"]\n')
            buildah.build(tag, folder, f"--file={folder / 'Dockerfile'}")
    return tag


def _mirror() -> str:
    """The mirror that this machine already uses."""
    lines = SOURCES.read_text().splitlines() if SOURCES.exists() else []
    found = next((line.split()[1] for line in lines if line.startswith("URIs:")), None)
    if found is None:
        raise Unavailable(f"{SOURCES} names no mirror; the base image is made from Debian packages")
    return found


def _ensure_pause(buildah: Buildah) -> str:
    program = ensure("pause")
    tag = f"localhost/trainrun/pause:{program.name.rsplit('-', 1)[1]}"
    if not buildah.has(tag):
        with told("the pause image"), _folder() as folder:
            shutil.copy(program, folder / "pause")
            (folder / "Dockerfile").write_text(
                'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
            )
            buildah.run("bud", f"--tag={tag}", str(folder))
    return tag


def _ensure(buildah: Buildah, base: str, name: str) -> str:
    recipe = RECIPES[name]
    with _folder() as context:
        for relative in (recipe.dockerfile, *recipe.inputs):
            _copy(ROOT / relative, context / relative)
        tag = f"localhost/trainrun/{name}:{_digest(base, recipe.target, recipe.argument, *_contents(context))}"
        if not buildah.has(tag):
            options = [f"--file={context / recipe.dockerfile}", f"--build-arg=BASE={base}"]
            options += [f"--target={recipe.target}"] if recipe.target else []
            options += [f"--build-arg={recipe.argument}"] if recipe.argument else []
            with told(f"the {name} image"):
                buildah.build(tag, context, *options)
    return tag


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _contents(folder: Path) -> Iterator[str]:
    """Names and digests of all files; sets the times that the layers depend on."""
    for path in sorted(folder.rglob("*")):
        os.utime(path, (EPOCH, EPOCH))
        if path.is_file():
            path.chmod(0o644)
            yield f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="build-", dir=IMAGES) as folder:
        yield Path(folder)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Minutes pass here: say so."""
    started = time.monotonic()
    print(f"nodes: making {what}", flush=True)
    yield
    print(f"nodes: made {what} in {time.monotonic() - started:.0f} s", flush=True)
