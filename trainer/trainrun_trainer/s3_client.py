"""One way to talk to S3: how long to wait, how often to ask again, and its refusals as OSErrors.

Imports no torch, so that the processes that read text stay small.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

CONNECT_SECONDS, READ_SECONDS = 5, 30
"""A store that is silent for so long is asked again: ten times, below the 15 minutes that a save may take."""
ATTEMPTS = 10
PART_BYTES = 64 << 20
TRANSFERS = 8
"""Parts at once, for each worker."""
IS_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict"}
IS_MISSING = {"NoSuchKey", "404", "NotFound"}


def make_client() -> Any:
    """A client with boto3's own credentials, region and endpoint."""
    retries = {"max_attempts": ATTEMPTS, "mode": "standard"}
    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries, max_pool_connections=2 * TRANSFERS
    )
    return boto3.client("s3", config=config)


def transfer_config() -> TransferConfig:
    """Large objects move as parallel parts (ranges, when they are read), each asked for again when it breaks off."""
    return TransferConfig(
        multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=TRANSFERS,
        num_download_attempts=ATTEMPTS,
    )  # fmt: skip


@contextmanager
def store_errors(address: str) -> Generator[None, None, None]:
    """The store's refusals as the OSErrors that a directory would raise."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in IS_MISSING:
            raise FileNotFoundError(errno.ENOENT, "No such object", address) from error
        if code in IS_TAKEN:
            raise FileExistsError(errno.EEXIST, "Object exists", address) from error
        raise OSError(errno.EIO, f"the store answers {code}", address) from error
    except (BotoCoreError, Boto3Error) as error:
        raise OSError(errno.EIO, f"the store does not answer ({error})", address) from error


def list_objects(client: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Key, Size and ETag of all objects whose key begins with `prefix`, sorted by key. Raises OSError."""
    with store_errors(f"s3://{bucket}/{prefix}"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted((one for page in pages for one in page.get("Contents") or ()), key=lambda one: str(one["Key"]))


def fetch_object(client: Any, bucket: str, key: str, target: Path) -> None:
    """Bring one object to a file, in parallel ranges. Raises OSError."""
    with store_errors(f"s3://{bucket}/{key}"):
        client.download_file(bucket, key, str(target), Config=transfer_config())


def etag(client: Any, bucket: str, key: str) -> str | None:
    """Of one object as it is now; None if it is gone. Raises OSError."""
    try:
        with store_errors(f"s3://{bucket}/{key}"):
            return str(client.head_object(Bucket=bucket, Key=key)["ETag"])
    except FileNotFoundError:
        return None
