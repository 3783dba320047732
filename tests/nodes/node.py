"""A real node: containerd, kubelet and kube-proxy in namespaces of their own, as a machine that can lose its power."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.controlplane.api import CORE, Api
from tests.controlplane.control_plane import ROOT
from tests.controlplane.processes import Process
from tests.controlplane.waiting import wait_for
from tests.nodes import cgroups, network
from tests.nodes.daemons import commands
from tests.nodes.network import Place
from tests.nodes.seed import Seed

DEVICE = "trainrun.dev/device"
"""One per node: workers request it, so that a node holds one of them."""


class Node:
    """Context manager; it has power inside of it, and `wait_ready` says when it can be used."""

    def __init__(self, name: str, number: int, folder: Path, kubeconfig: Path, seed: Seed, pause: str) -> None:
        self.name = name
        self.place = Place(number)
        self.folder = folder / name
        self._kubeconfig = kubeconfig
        self._seed = seed
        self._pause = pause
        self._stack = ExitStack()
        self._init = Process("init", self._command(), self.folder, cwd=ROOT)

    def __enter__(self) -> Node:
        with ExitStack() as stack:
            stack.callback(self._remove_files)
            self.folder.mkdir()
            self._seed.clone(self.folder / "containerd")
            stack.callback(cgroups.remove, self.name)
            cgroups.make(self.name)
            daemons = commands(self.name, self.place, self.folder, self._kubeconfig, self._pause)
            (self.folder / "node.json").write_text(json.dumps({"name": self.name, "daemons": daemons}))
            stack.callback(self.power_off)
            self.power_on()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def power_on(self) -> None:
        """Its programs start on what is on its disk; does not wait."""
        network.connect(self.place)
        self._init.start()

    def power_off(self) -> None:
        """The node vanishes: kubelet, pods and network at once. The API server still has the Node object."""
        network.disconnect(self.place)
        if not self._init.has_ended():
            self._init.kill()

    def pause(self) -> None:
        """Nothing on it runs, and no packet goes in or out."""
        network.set_cable(self.place, "down")
        cgroups.freeze(self.name, True)

    def unpause(self) -> None:
        """It goes on as if nothing had happened."""
        network.set_cable(self.place, "up")
        cgroups.freeze(self.name, False)

    def is_ready(self, api: Api) -> bool:
        """As the cluster sees it."""
        node = api.get(f"{CORE}/nodes/{self.name}") or {}
        conditions = (node.get("status") or {}).get("conditions") or []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def wait_ready(self, api: Api) -> None:
        """Ready for pods. An AssertionError shows what kubelet said last."""
        wait_for(lambda: self.is_ready(api), f"{self.name} to be Ready", seen=self.last_words)

    def wait_missed(self, api: Api) -> None:
        """Until the cluster has noticed that it is gone: `wait_ready` would take what was written before for news."""
        wait_for(lambda: not self.is_ready(api), f"{self.name} to be missed")

    def advertise_device(self, api: Api) -> None:
        """As a device plug-in would."""
        quantity = {DEVICE: "1"}
        api.merge(f"{CORE}/nodes/{self.name}/status", {"status": {"capacity": quantity, "allocatable": quantity}})

    def last_words(self) -> str:
        """The ends of its logs."""
        logs = {log.stem: log.read_text(errors="replace")[-1500:] for log in sorted(self.folder.glob("*.log"))}
        return "\n".join(f"--- {name}\n{text}" for name, text in logs.items())

    def _command(self) -> list[str]:
        return [
            "nsenter", f"--net=/run/netns/{self.place.namespace}",
            "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc",
            sys.executable, "-m", "tests.nodes.init", str(self.folder),
        ]  # fmt: skip

    def _remove_files(self) -> None:
        shutil.rmtree(self.folder)
