"""Reads byte ranges of S3 objects with obstore, which needs a third of boto3's CPU and no GIL.

obstore only handles the ordinary case. If it cannot read a range for any reason, the caller tries again with boto3,
which has the retries, redirects and errors of the rest of the project.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clay_assets.transport.locations import split_s3, version_of
from clay_assets.transport.retries import CONNECT_TIMEOUT, READ_TIMEOUT
from clay_assets.transport.s3 import S3Connection, sdk_environment

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

STORES_KEPT = 64  # one per bucket
FAILURES = 3  # consecutive failures after which a bucket is read with boto3 only


@dataclass(frozen=True)
class ObjectRange:
    """Bytes of an object, and its response headers."""

    data: memoryview
    size: int
    etag: str | None
    changed: datetime | None


@dataclass(eq=False)
class _Bucket:
    store: Any
    failures: int = 0


_OPENING = threading.Lock()
# The runtime of obstore does not survive a fork.
_process: int | None = None


def read_range(
    connection: S3Connection, href: str, start: int, stop: int, *, requester_pays: bool = False
) -> ObjectRange | None:
    """Bytes `start` to `stop` of an object, fewer if it ends before; None: use boto3."""
    global _process  # noqa: PLW0603
    if version_of(href) is not None or _process not in (None, os.getpid()):
        return None
    _process = os.getpid()
    name, key = split_s3(href)
    with _OPENING:  # so that only one of several threads requests the region
        bucket = _opened(connection, sdk_environment(), name, requester_pays)
    if bucket.failures >= FAILURES:
        return None
    import obstore

    try:
        answer = obstore.get(bucket.store, key, options={"range": (start, stop)})
        data, meta = memoryview(answer.bytes()), answer.meta  # a copy would take as long as fetching
    except Exception:  # of any class; boto3 reports the cause
        bucket.failures += 1
        return None
    bucket.failures = 0
    if answer.range != (start, min(stop, meta["size"])) or len(data) != answer.range[1] - start:
        return None
    return ObjectRange(data, meta["size"], meta["e_tag"], meta["last_modified"])


@lru_cache(maxsize=STORES_KEPT)
def _opened(
    connection: S3Connection, environment: tuple[tuple[str, str], ...], bucket: str, requester_pays: bool
) -> _Bucket:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    endpoint = connection.endpoint_url()
    found = (connection if endpoint else connection.in_region_of(bucket)).opened()
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT),
        "read_timeout": timedelta(seconds=READ_TIMEOUT),
        "timeout": timedelta(seconds=10 * READ_TIMEOUT),
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
    }
    if connection.verify is False:
        client["allow_invalid_certificates"] = True
    if bundle := connection.bundle():
        client["root_certificate"] = Path(bundle).read_bytes()
    config: S3Config = {
        "region": found.client.meta.region_name or "us-east-1",
        "virtual_hosted_style_request": not (endpoint or "." in bucket),
        "request_payer": requester_pays,
        "skip_signature": found.anonymous,
    }
    if endpoint:
        config["endpoint"] = endpoint
    store = S3Store(
        bucket,
        config=config,
        client_options=client,
        retry_config={"max_retries": 0},
        credential_provider=None if found.anonymous else Boto3CredentialProvider(found.session),
    )
    return _Bucket(store)
