"""Calls to the API server by the official client: JSON in, JSON out, with time-outs, and our error tree.

The client's models are not used: raw JSON is what `Cluster` speaks, and deserialising models costs more than all else.
Nothing is retried here; the work queue knows better when to come back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from trainrun_api.contract import GROUP

from trainrun_operator.cluster import Key, Kind, Object
from trainrun_operator.errors import AlreadyExists, ClusterError, Conflict, Expired, NotFound, Refused, Unavailable
from trainrun_operator.kube.stream import Stream

TIMEOUT_SECONDS = (3.0, 15.0)
"""To connect, and between two bytes of an answer: a pass that hangs longer is better run again."""
LIST_CHUNK = 100
"""Objects per page of a list: of big pods, a page of 500 takes 50 MB while it is decoded."""
CONNECTIONS = 80
"""Pool size: workers of the queue and of the poller."""
WATCH_SECONDS = 300
"""After which the API server ends a watch; it is begun again where it ended, and costs no list."""
WATCH_SILENCE_SECONDS = 70.0
"""The API server sends a bookmark every minute; a watch that says nothing for longer is dead."""

PATHS: dict[Kind | str, tuple[str, str]] = {
    "TrainingRun": (f"/apis/{GROUP}/v1alpha1", "trainingruns"),
    "PyTorchJob": ("/apis/kubeflow.org/v1", "pytorchjobs"),
    "Pod": ("/api/v1", "pods"),
    "Node": ("/api/v1", "nodes"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Event": ("/api/v1", "events"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
}
"""Where each kind is served."""

CallObserver = Callable[[str, str, str], None]
"""Takes verb, resource and status code ("none" without an answer) of each call."""


class KubeClient:
    """A thin, thread-safe caller."""

    def __init__(
        self,
        api: client.ApiClient,
        observe: CallObserver = lambda verb, resource, code: None,
        *,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> None:
        self._api = api
        self._observe = observe
        self._timeout = timeout_seconds

    def get(self, kind: Kind | str, key: Key) -> Object | None:
        """One object, live; None if there is none."""
        try:
            return self._call("get", kind, "GET", _path(kind, key.namespace, key.name))
        except NotFound:
            return None

    def pages(self, kind: Kind | str, namespace: str, selector: str = "", *, fields: str = "") -> Iterator[Object]:
        """A complete, consistent list, page by page; each has `items` and `metadata.resourceVersion`."""
        path, after = _path(kind, namespace), ""
        while True:
            query = {"limit": str(LIST_CHUNK), "labelSelector": selector, "fieldSelector": fields, "continue": after}
            page = self._call("list", kind, "GET", path, query=query)
            yield page
            after = page["metadata"].get("continue") or ""
            if not after:
                return

    def watch(self, kind: Kind | str, namespace: str, selector: str, version: str) -> Stream:
        """Everything that happens after that version, for `WATCH_SECONDS`. Raises Expired."""
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "labelSelector": selector,
            "timeoutSeconds": str(WATCH_SECONDS),
        }  # fmt: skip
        answer = self._send("watch", kind, "GET", _path(kind, namespace), query, silence=WATCH_SILENCE_SECONDS)
        return Stream(answer, f"watch {PATHS[kind][1]}")

    def create(self, kind: Kind | str, namespace: str, obj: Object) -> Object:
        """Create it. Raises AlreadyExists, Refused."""
        try:
            return self._call("create", kind, "POST", _path(kind, namespace), body=obj)
        except NotFound as error:
            raise Refused(f"{kind} cannot be created in namespace {namespace}: {error}") from error

    def replace(self, kind: Kind | str, obj: Object, *, subresource: str = "") -> Object:
        """Replace it under the resourceVersion that it carries. Raises Conflict, NotFound."""
        metadata = obj["metadata"]
        assert metadata.get("resourceVersion"), "a write without precondition"
        path = _path(kind, metadata.get("namespace", ""), metadata["name"])
        verb = "update" if not subresource else f"update {subresource}"
        return self._call(verb, kind, "PUT", path + (f"/{subresource}" if subresource else ""), body=obj)

    def merge(self, kind: Kind | str, key: Key, patch: Object) -> None:
        """Merge `patch` into the object whose uid it carries. Raises NotFound for any other."""
        assert patch["metadata"].get("uid"), "a write without precondition"
        path = _path(kind, key.namespace, key.name)
        try:
            self._call("patch", kind, "PATCH", path, body=patch, content="application/merge-patch+json")
        except Refused as error:
            if "metadata.uid" not in str(error):
                raise
            raise NotFound(f"{kind} {key.name} with uid {patch['metadata']['uid']} is gone: {error}") from error

    def delete(self, kind: Kind | str, key: Key, *, uid: str, grace_seconds: int | None = None) -> None:
        """Delete the object with this uid, its dependents in the background. Raises NotFound for any other."""
        options = {**_delete_options(grace_seconds), "preconditions": {"uid": uid}}
        try:
            self._send("delete", kind, "DELETE", _path(kind, key.namespace, key.name), {}, body=options).drain_conn()
        except Conflict as error:  # the uid is the only precondition
            raise NotFound(f"{kind} {key.name} with uid {uid} is gone: {error}") from error

    def delete_selected(self, kind: Kind | str, namespace: str, selector: str, *, grace_seconds: int) -> None:
        """Delete all that the labels select, in one call."""
        assert namespace, "a deletion in all namespaces"
        assert selector, "a deletion of everything"
        query, options = {"labelSelector": selector}, _delete_options(grace_seconds)
        self._send("deletecollection", kind, "DELETE", _path(kind, namespace), query, body=options).drain_conn()

    def _call(
        self,
        verb: str,
        kind: Kind | str,
        method: str,
        path: str,
        *,
        query: Object | None = None,
        body: Any = None,
        content: str = "application/json",
    ) -> Object:
        answer = self._send(verb, kind, method, path, query or {}, body=body, content=content)
        try:
            parsed: Object = json.loads(answer.data)
            return parsed
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise _no_answer(verb, kind, error) from error

    def _send(
        self,
        verb: str,
        kind: Kind | str,
        method: str,
        path: str,
        query: Object,
        *,
        body: Any = None,
        content: str = "application/json",
        silence: float | None = None,
    ) -> urllib3.HTTPResponse:
        """The answer, of which only the head is read; `silence` seconds may pass between two bytes of the rest."""
        connect, read = self._timeout
        code = "none"
        try:
            answer: urllib3.HTTPResponse = self._api.call_api(
                path,
                method,
                query_params=[(name, value) for name, value in query.items() if value],
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(connect, silence or read),
            )
            code = str(answer.status)
            return answer
        except ApiException as error:
            code = str(error.status)
            raise error_of(error, f"{verb} {PATHS[kind][1]}") from error
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise _no_answer(verb, kind, error) from error
        finally:
            self._observe(verb, PATHS[kind][1], code)


def connect() -> client.ApiClient:
    """A client for the cluster that we run in, or for the current kubeconfig. Raises Refused."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)
    except ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)
        except ConfigException as error:
            raise Refused(f"no cluster: neither a service account nor a usable kubeconfig ({error})") from error
    configuration.retries = False
    configuration.connection_pool_maxsize = CONNECTIONS
    return client.ApiClient(configuration)


def error_of(error: ApiException, call: str) -> ClusterError:
    """An answer of the API server as one of our errors."""
    reason, message = _said(error)
    text = f"{call}: {message}"
    match error.status:
        case 404:
            return NotFound(text)
        case 409 if "UID in precondition" in message:  # another object has the name now, or none
            return NotFound(text)
        case 409:
            return AlreadyExists(text) if reason == "AlreadyExists" else Conflict(text)
        case 410:
            return Expired(text)
        case 401 | 408 | 429:  # a token that is being renewed, and what passes by itself
            return Unavailable(text)
        case status if status is not None and 400 <= status < 500:
            return Refused(text)
        case _:
            return Unavailable(text)


def _delete_options(grace_seconds: int | None) -> Object:
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    return options if grace_seconds is None else {**options, "gracePeriodSeconds": grace_seconds}


def _no_answer(verb: str, kind: Kind | str, error: Exception) -> Unavailable:
    return Unavailable(f"{verb} {PATHS[kind][1]}: no answer from the API server ({type(error).__name__})")


def _said(error: ApiException) -> tuple[str, str]:
    """Reason and message of the Status object in the answer, if it holds one."""
    try:
        status = json.loads(error.body or "")
        return str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):
        return "", f"HTTP {error.status} {error.reason}"


def _path(kind: Kind | str, namespace: str, name: str = "") -> str:
    base, plural = PATHS[kind]
    path = f"{base}/namespaces/{namespace}/{plural}" if namespace else f"{base}/{plural}"
    return f"{path}/{name}" if name else path
