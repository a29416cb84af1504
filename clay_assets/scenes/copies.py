"""Copies of a scene's files in our own storage.

Copying is resumable: a file that is already there with the size of its source is kept. Between S3 buckets the
server copies, so no byte passes through here.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import requests as http
from boto3 import Session
from boto3.exceptions import Boto3Error
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from clay_assets.access import fit_to_show, s3_endpoint, without_signature
from clay_assets.errors import InputError, SourceError
from clay_assets.platforms.base import Item, Options, Platform
from clay_assets.storage import layout
from clay_assets.storage.downloads import TIMEOUT, DeniedError, check_answer, fetch_url, retrying
from clay_assets.storage.stores import S3Store, Store, s3_client

ATTEMPTS = 4
ABSENT = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Copied:
    """One scene whose files are in our storage.

    Attributes:
        item: with the hrefs of the copies.
        files: of the scene.
        bytes: of them all.
        written: files copied now; the others were there.
    """

    item: Item
    files: int
    bytes: int
    written: int


def copy_scene(platform: Platform, options: Options, store: Store, item: Item) -> Copied:
    """Copy all files of one scene into our storage, below `imagery/{platform}/{item_id}/`.

    Raises:
        InputError: a source file is absent or forbidden.
        SourceError: it could not be copied after retries.
        StorageError: our storage cannot be written.
    """
    hrefs = {}
    copied_now = size = 0
    sources = {name: _Source(platform.href(asset, options), platform) for name, asset in item["assets"].items()}
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
    return Copied(platform.settled(item, options, hrefs), len(hrefs), size, copied_now)


class _Source:
    """One file to copy: local, on S3 (also by its https address) or on a web server."""

    def __init__(self, href: str, platform: Platform) -> None:
        self.href = href
        self.access = platform.access_to(href)
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
                self._signed(lambda url: fetch_url(url, path))
            else:
                shutil.copyfile(self._path, path)

    def _size(self) -> int:
        if self.bucket:
            with self._explaining():
                return int(self._client.head_object(Bucket=self.bucket, Key=self.key, **self._payer)["ContentLength"])
        if self._on_the_web:
            return self._signed(_web_size)
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

    def _signed(self, ask: Callable[[str], Answer]) -> Answer:
        """Ask with the address as it is read now; where its signature is refused, once more with a new one."""
        address = self.access.address(self.href)
        try:
            return ask(address)
        except DeniedError:
            if self.access.signer is None:
                raise
        self.access.signer.forget(address)
        return ask(self.access.address(self.href))

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
        said = without_signature(f"{url}: could not be reached ({error})")
        raise SourceError(f"{said}. Run again.") from fit_to_show(error)
    check_answer(url, answer)
    if "Content-Length" not in answer.headers:
        raise InputError(
            f"{without_signature(url)}: the server does not say how large the file is, so no copy of it can be checked."
        )
    return int(answer.headers["Content-Length"])
