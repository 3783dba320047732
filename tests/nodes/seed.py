"""A containerd root with all images in it: filled once, kept, and cloned to each node by hard links in seconds.

Images and layers never change in place, so nodes share their files (and the page cache); only the data bases are
copied. A new image brings only the layers that are not there yet.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.controlplane.processes import Process
from tests.nodes.images import STORAGE, Images, told
from tests.nodes.layers import Storage
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
        if not self._list.exists() and self._root.exists():
            shutil.rmtree(self._root)  # somebody was interrupted: an image may be there that was not unpacked
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
            for name in wanted:
                if name not in present:
                    self._import(name, ctr)
            for name in present:  # last: until then they keep the layers that the new ones share with them
                if name not in wanted:
                    call(*ctr, "images", "remove", "--sync", name)

    def _import(self, name: str, ctr: tuple[str, ...]) -> None:
        known = {blob.name for blob in (self._root / BLOBS).glob("*")}
        with subprocess.Popen(
            [*ctr, "images", "import", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as reader:
            assert reader.stdin is not None
            Storage(STORAGE).write_image(name, known, reader.stdin)
            reader.stdin.close()
        assert reader.returncode == 0, f"containerd did not take {name}"
