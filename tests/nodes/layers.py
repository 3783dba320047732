"""Images out of buildah's storage, layer by layer, as a stream that containerd imports.

`buildah push` would write, and compress, all of an image each time: minutes for one with torch. The storage keeps,
beside a layer's files, a recipe of the archive they came from (tar-split: pieces of the archive, and files between
them), so any layer can be had alone and to the byte; containerd checks the digests of what it gets.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BUFFER_BYTES = 1 << 20
FILE = 1
"""An entry of a recipe that stands for a file's content; all others are pieces."""


@dataclass(frozen=True)
class Image:
    """Manifest and configuration, as they were written."""

    manifest: bytes
    config: bytes

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Digest and size of each, lowest first."""
        return list(json.loads(self.manifest)["layers"])


class Storage:
    """A storage of the driver overlay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        layers = json.loads((folder / "overlay-layers" / "layers.json").read_text())
        self._layer_ids = {layer["diff-digest"]: layer["id"] for layer in layers if "diff-digest" in layer}

    def image(self, tag: str) -> Image:
        """The image of that name."""
        images = json.loads((self._folder / "overlay-images" / "images.json").read_text())
        (identity,) = [one["id"] for one in images if tag in (one.get("names") or [])]
        folder = self._folder / "overlay-images" / identity
        config = base64.b64encode(f"sha256:{identity}".encode()).decode()
        return Image((folder / "manifest").read_bytes(), (folder / f"={config}").read_bytes())

    def names(self, digest: str) -> list[str]:
        """Of the layer's files, and of what it takes away from those below (`.wh.`)."""
        return [entry["name"] for entry in self._recipe(digest) if entry["type"] == FILE]

    def write_layer(self, digest: str, out: IO[bytes]) -> None:
        """Its archive."""
        files = self._folder / "overlay" / self._layer_ids[digest] / "diff"
        for entry in self._recipe(digest):
            if entry["type"] != FILE:
                out.write(base64.b64decode(entry["payload"] or ""))
            elif entry.get("size"):
                with (files / entry["name"]).open("rb") as file:
                    shutil.copyfileobj(file, out, BUFFER_BYTES)

    def _recipe(self, digest: str) -> Iterator[dict[str, Any]]:
        with gzip.open(self._folder / "overlay-layers" / f"{self._layer_ids[digest]}.tar-split.gz") as recipe:
            for line in recipe:
                yield json.loads(line)

    def write_image(self, tag: str, known: Collection[str], out: IO[bytes]) -> None:
        """An archive of the image in the layout of OCI, without the blobs that the reader has."""
        image = self.image(tag)
        index = {"schemaVersion": 2, "manifests": [_described(image.manifest, tag)]}
        _add(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(out, "index.json", json.dumps(index).encode())
        for blob in (image.manifest, image.config):
            _add(out, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        for layer in image.layers:
            name = layer["digest"].removeprefix("sha256:")
            if name not in known:
                _add_stream(out, f"blobs/sha256/{name}", layer["size"], self._writer_of(layer["digest"]))
        out.write(bytes(2 * tarfile.BLOCKSIZE))

    def _writer_of(self, digest: str) -> Callable[[IO[bytes]], None]:
        return lambda out: self.write_layer(digest, out)


def _described(manifest: bytes, tag: str) -> dict[str, object]:
    return {
        "mediaType": json.loads(manifest)["mediaType"],
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": tag},
    }


def _add(out: IO[bytes], path: str, content: bytes) -> None:
    _add_stream(out, path, len(content), lambda target: target.write(content))


def _add_stream(out: IO[bytes], path: str, size: int, write: Callable[[IO[bytes]], object]) -> None:
    member = tarfile.TarInfo(path)
    member.size = size
    out.write(member.tobuf(tarfile.GNU_FORMAT))
    write(out)
    out.write(bytes(-size % tarfile.BLOCKSIZE))
