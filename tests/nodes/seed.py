"""A containerd root with all images in it: filled once, kept, and cloned to each node by hard links in seconds.

Images and layers never change in place, so nodes share their files (and the page cache); only the data bases are
copied. A new image brings only the layers that are not there yet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.controlplane.processes import Process
from tests.nodes.images import Buildah, Images, told
from tests.nodes.machine import IMAGES, RUN, call

NAMESPACE = "k8s.io"
"""Where kubelet's images are."""
BLOBS = "io.containerd.content.v1.content/blobs/sha256"


class Seed:
    """The root, and the list of what is in it."""

    def __init__(self) -> None:
        self._folder = IMAGES / "seed"
        self._root = self._folder / "root"
        self._list = self._folder / "images.json"

    def ensure(self, images: Images) -> None:
        """Exactly these images are in it. The caller holds the session's lock."""
        wanted = sorted(images)
        if self._list.exists() and json.loads(self._list.read_text()) == wanted:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        self._list.unlink(missing_ok=True)
        with told("the nodes' store of images"):
            self._fill(wanted)
        self._list.write_text(json.dumps(wanted))

    def clone(self, target: Path) -> None:
        """A root of its own for one node."""
        call("cp", "-al", str(self._root), str(target))
        for database in self._root.rglob("*.db"):
            copy = target / database.relative_to(self._root)
            copy.unlink()
            shutil.copy(database, copy)

    def _fill(self, wanted: list[str]) -> None:
        socket = RUN / "seed.sock"
        config = self._folder / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self._root}"\nstate = "{RUN}/seed"\noom_score = 0\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{socket}"\n'
        )
        ctr = ("ctr", "--address", str(socket), "--namespace", NAMESPACE)
        # in a mount namespace of its own: what it mounts for unpacking is gone with it
        command = ["unshare", "--mount", "containerd", "--config", str(config)]
        with Process("seed-containerd", command, self._folder) as containerd:
            containerd.wait_until(lambda: bool(call(*ctr, "version", quiet=True).count("Server:")), "ready")
            present = call(*ctr, "images", "list", "--quiet").split()
            for name in present:
                if name not in wanted:
                    call(*ctr, "images", "remove", "--sync", name)
            for name in wanted:
                if name not in present:
                    self._import(name, ctr)

    def _import(self, name: str, ctr: tuple[str, ...]) -> None:
        with tempfile.TemporaryDirectory(prefix="build-", dir=IMAGES) as folder:
            layout = Path(folder) / "layout"
            known = self._lay_out_known(layout)
            Buildah(IMAGES / "buildah").push(name, layout)
            index = json.loads((layout / "index.json").read_text())
            index["manifests"][0]["annotations"] = {"io.containerd.image.name": name}
            (layout / "index.json").write_text(json.dumps(index))
            files = [path for path in sorted(layout.rglob("*")) if path.is_file() and path.name not in known]
            _send(layout, files, [*ctr, "images", "import", "-"])

    def _lay_out_known(self, layout: Path) -> set[str]:
        """Begin an OCI layout with the blobs that containerd has, so that they are not written again."""
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        known = {blob.name for blob in (self._root / BLOBS).glob("*")}
        for name in known:
            os.link(self._root / BLOBS / name, blobs / name)
        return known


def _send(folder: Path, files: list[Path], command: list[str]) -> None:
    """Pipe an archive of the files into the command."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
        assert reader.stdin is not None
        with tarfile.open(fileobj=reader.stdin, mode="w|") as tar:
            for file in files:
                tar.add(file, str(file.relative_to(folder)))
        reader.stdin.close()
    assert reader.returncode == 0, f"{' '.join(command)} failed"
