"""The items with the hrefs that will be read: as in the catalogue, or of copies in our own storage.

Copying is resumable: a file that is already there with the size of its source is kept. Between S3 buckets the
server copies, so no byte passes through here. The ledger has one row per scene:

| column | type | meaning |
|---|---|---|
| `item_id` | string | the scene |
| `outcome` | string | `referenced`, `copied` or `failed` |
| `files`, `bytes` | int32, int64 | files and bytes of the copy; 0 where there is none |
| `error` | string | why it failed; such a scene is set aside |
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import requests as http
from boto3 import Session
from boto3.exceptions import Boto3Error
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from clay_assets.access import s3_endpoint
from clay_assets.errors import InputError, SourceError, StorageError
from clay_assets.executors import run_bounded
from clay_assets.platforms.base import Item, Options, Platform
from clay_assets.storage import layout
from clay_assets.storage.downloads import TIMEOUT, check_answer, fetch_url, retrying
from clay_assets.storage.stores import S3Store, Store, s3_client

REFERENCED, COPIED, FAILED = "referenced", "copied", "failed"
ATTEMPTS = 4
ABSENT = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
LEDGER_TYPES = {
    "item_id": "string",
    "outcome": "string",
    "files": "int32",
    "bytes": "int64",
    "error": "string",
}


@dataclass(frozen=True)
class Imagery:
    """Scenes of one cell with the hrefs to read.

    Attributes:
        items: the scenes, ordered by id.
        ledger: one row per scene asked for, ordered by id.
        copied_now: files copied by this call; not part of the ledger, so that a run without news writes the same
            bytes.
    """

    items: list[Item]
    ledger: pd.DataFrame
    copied_now: int = 0


def readable_items(
    platform: Platform,
    items: Sequence[Item],
    options: Options,
    store: Store,
    executor: Executor,
    in_flight: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imagery:
    """Settle which files are read for each scene, copying them first where the recipe says so.

    Args:
        platform: whose hrefs and whose access.
        items: the picked items.
        options: `imagery` decides between reference and copy.
        store: where copies go.
        executor: copies scenes in parallel.
        in_flight: scenes at once.
        progress: called with (scenes done, scenes in all).

    Raises:
        StorageError: our storage cannot be written.
    """
    if options.imagery == "reference":
        rows = [_row(item["id"], REFERENCED) for item in items]
        return Imagery([with_hrefs(platform, item) for item in items], _ledger(rows))
    done: list[Item] = []
    rows, copied_now = [], 0
    copy = partial(copy_scene, platform, store)
    for count, (item, future) in enumerate(run_bounded(executor, copy, items, in_flight), start=1):
        try:
            copied, row, files = future.result()
        except StorageError:
            raise  # ours cannot be written: no point in trying the other scenes
        except Exception as error:  # whatever a library makes of a bad source, it is not the others' fault
            rows.append(_row(item["id"], FAILED, error=str(error) or type(error).__name__))
        else:
            done.append(copied)
            rows.append(row)
            copied_now += files
        progress(count, len(items))
    return Imagery(sorted(done, key=lambda item: str(item["id"])), _ledger(rows), copied_now)


def with_hrefs(platform: Platform, item: Item, hrefs: Mapping[str, str] | None = None) -> Item:
    """The item with its assets' hrefs settled; the other addresses of an asset are dropped.

    Args:
        platform: says which of an asset's hrefs is read.
        item: a picked item.
        hrefs: asset → href that replaces it.
    """
    settled = {}
    for name, asset in item["assets"].items():
        kept = {field: value for field, value in asset.items() if field != "alternate"}
        settled[name] = {**kept, "href": (hrefs or {}).get(name) or platform.href(asset)}
    return {**item, "assets": settled}


def copy_scene(platform: Platform, store: Store, item: Item) -> tuple[Item, dict[str, Any], int]:
    """Copy all files of one scene into our storage, below `imagery/{platform}/{item_id}/`.

    Returns:
        The item with the hrefs of the copies, its ledger row, and how many files were copied now.

    Raises:
        InputError: a source file is absent or forbidden.
        SourceError: it could not be copied after retries.
        StorageError: our storage cannot be written.
    """
    hrefs = {}
    copied_now = size = 0
    sources = {name: _Source(platform.href(asset), platform) for name, asset in item["assets"].items()}
    used = Counter(source.name for source in sources.values())
    for name, source in sources.items():
        own = source.name if used[source.name] == 1 else f"{name}-{source.name}"  # as R10m/B02.jp2 and R20m/B02.jp2
        key = layout.imagery(platform.key, item["id"], own)
        expected = source.size
        if store.size(key) != expected:
            source.copy_to(store, key)
            if store.size(key) != expected:
                store.delete([key])
                raise SourceError(f"{source.href}: the copy has {store.size(key)} of {expected} bytes. Run again.")
            copied_now += 1
        size += expected
        hrefs[name] = store.uri(key)
    return with_hrefs(platform, item, hrefs), _row(item["id"], COPIED, len(hrefs), size), copied_now


class _Source:
    """One file to copy: local, on S3 (also by its https address) or on a web server."""

    def __init__(self, href: str, platform: Platform) -> None:
        self.href = href
        self.access = platform.access.to(href)
        self.bucket, self.key = _s3_address(href)
        self.name = PurePosixPath(self.key or unquote(urlsplit(href).path)).name

    @cached_property
    def size(self) -> int:
        """Bytes of the source."""
        for attempt in retrying(ATTEMPTS):
            with attempt:
                return self._size()
        raise AssertionError("tenacity either returns or raises")

    def copy_to(self, store: Store, key: str) -> None:
        """Put the file under a key of our storage, whole."""
        if self.bucket and isinstance(store, S3Store):
            self._copy_on_server(store, key)
            return
        with store.writing(key) as path:
            if self.bucket:
                self._download(path)
            elif self._on_the_web:
                fetch_url(self._signed, path)
            else:
                shutil.copyfile(self._path, path)

    def _size(self) -> int:
        if self.bucket:
            with self._explaining():
                return int(self._client.head_object(Bucket=self.bucket, Key=self.key, **self._payer)["ContentLength"])
        if self._on_the_web:
            return _web_size(self._signed)
        try:
            return Path(self._path).stat().st_size
        except OSError as error:
            raise InputError(f"{self.href}: there is no such file ({error}).") from error

    def _copy_on_server(self, store: S3Store, key: str) -> None:
        source = {"Bucket": self.bucket, "Key": self.key}
        for attempt in retrying(ATTEMPTS):
            with attempt, self._explaining():
                store.client.copy(
                    source,
                    store.bucket,
                    store.object_key(key),
                    ExtraArgs=self._payer,
                    SourceClient=self._client,
                )

    def _download(self, path: Path) -> None:
        for attempt in retrying(ATTEMPTS):
            with attempt, self._explaining():
                self._client.download_file(self.bucket, self.key, str(path), ExtraArgs=self._payer)

    @property
    def _on_the_web(self) -> bool:
        return urlsplit(self.href).scheme in ("http", "https")

    @property
    def _path(self) -> str:
        return self.href.removeprefix("file://")

    @property
    def _signed(self) -> str:
        return self.access.sign(self.href) if self.access.sign else self.href

    @property
    def _payer(self) -> dict[str, str]:
        return {"RequestPayer": "requester"} if self.access.requester_pays else {}

    @property
    def _client(self) -> Any:
        return _source_client(self.access.unsigned, s3_endpoint())

    def _explaining(self) -> _Explaining:
        return _Explaining(self.href)


class _Explaining:
    """Turns the SDK's errors about a source into ours."""

    def __init__(self, href: str) -> None:
        self.href = href

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            if code in ABSENT:
                raise InputError(f"{self.href}: there is no such file ({error}).") from error
            if code in DENIED:
                raise InputError(
                    f"{self.href}: access was refused ({error}). Check AWS credentials and requester-pays rights."
                ) from error
            raise SourceError(f"{self.href}: could not be copied ({error}). Run again.") from error
        if isinstance(error, (BotoCoreError, Boto3Error)):
            raise SourceError(f"{self.href}: could not be copied ({error}). Run again.") from error


@lru_cache(maxsize=8)
def _source_client(unsigned: bool, endpoint: str | None) -> Any:
    # One client for all files: making one takes longer than asking for a file's size.
    if unsigned:
        return Session().client("s3", endpoint_url=endpoint, config=Config(signature_version=UNSIGNED))
    return s3_client()


def _s3_address(href: str) -> tuple[str, str]:
    parts = urlsplit(href)
    if parts.scheme == "s3":
        return parts.netloc, parts.path.lstrip("/")
    host = parts.netloc
    on_aws = parts.scheme == "https" and ".s3." in host and host.endswith(".amazonaws.com")
    if on_aws and s3_endpoint() is None:  # else our S3 is elsewhere, and this is just a web address
        return host.split(".s3.")[0], unquote(parts.path.lstrip("/"))
    return "", ""


def _web_size(url: str) -> int:
    try:
        answer = http.head(url, timeout=TIMEOUT, allow_redirects=True, headers={"Accept-Encoding": "identity"})
    except http.RequestException as error:
        raise SourceError(f"{url}: could not be reached ({error}). Run again.") from error
    check_answer(url, answer)
    if "Content-Length" not in answer.headers:
        raise InputError(f"{url}: the server does not say how large the file is, so no copy of it can be checked.")
    return int(answer.headers["Content-Length"])


def _row(item_id: str, outcome: str, files: int = 0, size: int = 0, error: str | None = None) -> dict[str, Any]:
    return {"item_id": item_id, "outcome": outcome, "files": files, "bytes": size, "error": error}


def _ledger(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)
    return frame.sort_values("item_id", ignore_index=True)
