"""Which store an address means: a directory, or a prefix of a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.storage import LocalDirectory, Storage


def open_storage(path: str) -> Storage:
    """The store behind `checkpoint.path`.

    Raises ConfigError for a scheme that this version cannot serve.
    """
    scheme = urlparse(path).scheme
    if scheme == "s3":
        from trainrun_trainer.object_store import open_s3  # boto3 takes a second that only its users shall wait

        return open_s3(path)
    if scheme == "file":
        return LocalDirectory(Path(urlparse(path).path))
    if scheme or not os.path.isabs(path):
        raise ConfigError(f"checkpoint.path={path}: expected an absolute path, file:///... or s3://bucket/prefix")
    return LocalDirectory(Path(path))
