"""Copies of a scene's files in our own storage.

Copying is resumable: an existing copy with the size of its source is kept. Between S3 buckets that are accessed in the
same way the server copies, so that no data passes through this machine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from clay_assets.errors import InputError, SourceError
from clay_assets.platforms.base import AnyPlatform, Options
from clay_assets.sources.downloads import fetch, size_of
from clay_assets.sources.rasters import needs_side_cars, side_cars
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore, S3Store, Store
from clay_assets.transport import s3
from clay_assets.transport.access import Access
from clay_assets.transport.locations import S3, is_s3, name_of, s3_address_of
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying


@dataclass(frozen=True)
class Copied:
    """One scene whose files are in our storage.

    Attributes:
        item: the item with the hrefs of the copies.
        files: number of its files.
        bytes: their total size.
        written: number of files copied by this call; the others existed.
    """

    item: Item
    files: int
    bytes: int
    written: int


def copy_scene(platform: AnyPlatform, options: Options, store: Store, item: Item) -> Copied:
    """Copy all files of one scene into our storage, below `imagery/{platform}/{item_id}/`.

    Raises:
        InputError: a source file is missing, or access to it is denied.
        SourceError: a file could not be copied, even after retries.
        StorageError: our storage cannot be written.
    """
    hrefs = {}
    copied_now = size = 0
    sources = {name: _Source(platform.href(asset, options), platform) for name, asset in item["assets"].items()}
    used = Counter(source.name for source in sources.values())
    for name, source in sources.items():
        alone = source.name and used[source.name] == 1  # unlike R10m/B02.jp2 and R20m/B02.jp2
        own = source.name if alone else f"{name}-{source.name}"
        key = layout.imagery(platform.key, item["id"], own)
        beside, expected = source.needed_beside(store), source.size
        if store.size(key) != expected:
            source.copy_to(store, key)
            if store.size(key) != expected:
                store.delete([key])
                raise SourceError(f"{source.href}: only {store.size(key)} of {expected} bytes copied. Run again.")
            copied_now += 1
        size += expected + source.copy_beside(beside, store, key)
        hrefs[name] = store.uri(key)
    return Copied(platform.settled(item, options, hrefs), len(hrefs), size, copied_now)


class _Source:
    """One file to copy."""

    def __init__(self, href: str, platform: AnyPlatform) -> None:
        self.href = href
        self.access = platform.access_to(href)
        self.address = _address(href, self.access)
        self.name = name_of(self.address)

    @cached_property
    def size(self) -> int:
        """Size of the source in bytes."""
        return size_of(self.address, self.access)

    def copy_to(self, store: Store, key: str) -> None:
        """Store the whole file under a key of our storage."""
        if isinstance(store, S3Store) and self._served_with(store):
            for attempt in retrying(WORK_ATTEMPTS):
                with attempt:
                    self._copy_on_server(store, key)
            return
        with store.writing(key) as path:
            fetch(self.address, path, self.access)

    def needed_beside(self, store: Store) -> list[Path]:
        """Sidecar files that a local file needs.

        Raises:
            InputError: the copy would lie on S3, where sidecar files are not read.
        """
        beside = side_cars(self.address)
        if not beside or not needs_side_cars(self.address):
            return []
        if not isinstance(store, LocalStore):
            raise InputError(
                f"{self.href}: incomplete without its sidecar {', '.join(path.name for path in beside)}, which is not "
                'read on S3. Write both into one file, such as with gdal_translate, or use imagery = "reference".'
            )
        return beside

    def copy_beside(self, beside: list[Path], store: Store, key: str) -> int:
        """Copy the sidecar files; returns their size in bytes."""
        name = PurePosixPath(self.name)
        stem = key.removesuffix(name.suffix)
        for path in beside:
            ending = path.name.removeprefix(self.name)
            other = key + ending if ending != path.name else stem + path.suffix
            if store.size(other) != path.stat().st_size:
                with store.writing(other) as target:
                    fetch(str(path), target)
        return sum(path.stat().st_size for path in beside)

    def _served_with(self, store: S3Store) -> bool:
        """Whether the server of our storage can read the source with our storage's credentials."""
        if not is_s3(self.address):
            return False
        source, ours = self.access.s3(), store.connection
        return source == ours or (source.unsigned and source.endpoint_url() == ours.endpoint_url())

    def _copy_on_server(self, store: S3Store, key: str) -> None:
        with s3.translating_errors(self.href, self.access.remedy(self.address)):
            store.client.copy(
                s3.object_of(self.address),
                store.bucket,
                store.object_key(key),
                ExtraArgs=s3.payer(self.access.requester_pays),
                SourceClient=self.access.s3().client(),
            )


def _address(href: str, access: Access) -> str:
    """The href, or the `s3://` address of a file that AWS serves over https, if our S3 is AWS too."""
    found = None if is_s3(href) else s3_address_of(href)
    if found is None or access.signer is not None or access.headers or access.s3().endpoint_url() is not None:
        return href
    return f"{S3}{'/'.join(found)}"
