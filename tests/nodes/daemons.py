"""How a node's containerd, kubelet and kube-proxy are told to run: containers are real, the machine is shared."""

from __future__ import annotations

import json
from pathlib import Path

from tests.controlplane.binaries import ensure
from tests.nodes.machine import CGROUP, SOCKET
from tests.nodes.network import ADDRESS, POD_RANGE, Place

HEALTH = "sagemaker.amazonaws.com/node-health-status"


def commands(name: str, place: Place, folder: Path, kubeconfig: Path, pause: str) -> dict[str, list[str]]:
    """Writes their configurations into the node's folder; their command lines by name."""
    (folder / "containerd.toml").write_text(_containerd(folder, pause))
    (folder / "cni").mkdir()
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_network(place, folder)))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(name, folder)))
    return {
        "containerd": ["containerd", "--config", str(folder / "containerd.toml")],
        "kubelet": [
            str(ensure("kubelet")), f"--config={folder / 'kubelet.json'}", f"--node-ip={place.address}",
            f"--hostname-override={name}", f"--kubeconfig={kubeconfig}", f"--node-labels={HEALTH}=Schedulable",
        ],
        "kube-proxy": [
            str(ensure("kube-proxy")), f"--kubeconfig={kubeconfig}", f"--hostname-override={name}",
            "--proxy-mode=iptables", f"--cluster-cidr={POD_RANGE}", "--healthz-bind-address=127.0.0.1:10256",
            # these would write tunables of the machine
            "--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ],
    }  # fmt: skip


def _containerd(folder: Path, pause: str) -> str:
    return f"""
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""


def _pod_network(place: Place, folder: Path) -> dict[str, object]:
    addresses = {
        "type": "host-local", "ranges": [[{"subnet": place.pods}]], "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "addresses"),
    }  # fmt: skip
    bridge = {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses,
    }  # fmt: skip
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


def _kubelet(name: str, folder: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}/{name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "resolvConf": "",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # a node is not Ready 6 s after its last word
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "10s",
        "nodeLeaseDurationSeconds": 6,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "shutdownGracePeriod": "0s",
        "volumePluginDir": str(folder / "plugins"),
    }
