"""CoreDNS for the nodes' pods; it answers for the cluster and knows nobody else."""

from __future__ import annotations

from pathlib import Path

from tests.controlplane.binaries import ensure
from tests.controlplane.processes import Process
from tests.nodes.network import ADDRESS

# Two servers: in one, the template would answer before the cluster.
COREFILE = """
cluster.local in-addr.arpa {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} test
    ttl 1
  }}
}}
. {{
  bind {address}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def coredns(folder: Path, kubeconfig: Path) -> Process:
    """A process to enter."""
    corefile = folder / "Corefile"
    corefile.write_text(COREFILE.format(address=ADDRESS, kubeconfig=kubeconfig))
    return Process("coredns", [str(ensure("coredns")), "-conf", str(corefile)], folder)
