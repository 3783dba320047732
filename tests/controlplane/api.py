"""Raw calls to the API server for tests, as any user of it: paths in, JSON out, failures with the server's sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

TIMEOUT_SECONDS = 30.0
WATCH_SECONDS = 2
"""A watch begins anew so often, so that whoever stops it waits no longer."""
CORE = "/api/v1"
RUNS = "/apis/trainrun.dev/v1alpha1"
JOBS = "/apis/kubeflow.org/v1"


class ApiError(Exception):
    """An answer that is an error: code (0: there was none) and the Status object."""

    def __init__(self, code: int, status: dict[str, Any]) -> None:
        super().__init__(f"{code} {status.get('message', status)}")
        self.code = code
        self.status = status


class Api:
    """One user's view of the API server."""

    def __init__(self, kubeconfig: Path) -> None:
        configuration = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        configuration.retries = False
        self.client = client.ApiClient(configuration)

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """One request. Raises ApiError."""
        return _parsed(self._request(method, path, body, kind).data)

    def _request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        try:
            return self.client.call_api(
                path, method, body=body, header_params={"Accept": "application/json", "Content-Type": kind},
                auth_settings=["BearerToken"], _return_http_data_only=True, _preload_content=False,
                _request_timeout=TIMEOUT_SECONDS,
            )  # fmt: skip
        except ApiException as error:
            raise ApiError(error.status or 0, _parsed(error.body)) from None
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, {"message": f"no answer: {error}"}) from None

    def get(self, path: str) -> Any:
        """Read. None if it is not there."""
        try:
            return self.call("GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def pages(self, path: str, size: int = 500) -> Iterator[Any]:
        """A list in parts, for what is too long for one answer."""
        after = ""
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}limit={size}&continue={after}")
            yield page
            after = page["metadata"].get("continue") or ""
            if not after:
                return

    def watch(self, path: str, version: str, stop: threading.Event) -> Iterator[tuple[str, dict[str, Any]]]:
        """(type, object) of each change after that version, until `stop`. Raises ApiError when it cannot go on."""
        while not stop.is_set():
            options = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
            try:
                answer = self._request("GET", f"{path}{'&' if '?' in path else '?'}{options}")
                for line in answer:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 0), event["object"])
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
            except urllib3.exceptions.HTTPError as error:
                raise ApiError(0, {"message": f"the watch broke: {error}"}) from None

    def create(self, path: str, obj: dict[str, Any]) -> Any:
        """POST to the collection."""
        return self.call("POST", path, obj)

    def merge(self, path: str, patch: dict[str, Any]) -> Any:
        """A merge patch."""
        return self.call("PATCH", path, patch, kind="application/merge-patch+json")

    def apply(self, path: str, obj: dict[str, Any]) -> Any:
        """A server-side apply."""
        return self.call("PATCH", f"{path}?fieldManager=tests&force=true", obj, kind="application/apply-patch+yaml")

    def delete(self, path: str, **options: Any) -> None:
        """Delete; what is gone already is fine."""
        try:
            self.call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})
        except ApiError as error:
            if error.code != 404:
                raise


def _parsed(text: bytes | str | None) -> Any:
    plain = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    try:
        return json.loads(plain)
    except ValueError:
        return {"message": plain}
