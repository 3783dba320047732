"""The Kubernetes side of the `Cluster` seam. Only this package imports the Kubernetes client.

`cache` and `rbac` need no client; `client` owns connections and errors; `kube_cluster` is the seam's implementation.
"""
