"""Reads static STAC catalogues: JSON files linked to each other, on a disk, a web server or S3.

Reads documents by address, and makes links absolute. A collection may link to thousands of items, so documents are only
read on request.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pystac.utils import make_absolute_href

from clay_assets.errors import InputError
from clay_assets.sources.downloads import read_bytes
from clay_assets.stac import Item
from clay_assets.transport.locations import FILE_URL, S3, is_http, is_s3, local_path, split_s3

CATALOG = "catalog.json"
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:/", re.IGNORECASE)


def root_of(location: str) -> str:
    """The address of a catalogue's root document: `catalog.json` in a folder."""
    if is_http(location):  # may be signed
        parts = urlsplit(location)
        path = parts.path if parts.path.endswith(".json") else f"{parts.path.rstrip('/')}/{CATALOG}"
        return urlunsplit(parts._replace(path=path))
    return location if location.endswith(".json") else f"{location.rstrip('/')}/{CATALOG}"


def read_document(href: str) -> dict[str, Any]:
    """Read a STAC document.

    Raises:
        InputError: file not found, or not a JSON object.
        SourceError: the document could not be read now.
    """
    content = read_bytes(href)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{href}: not JSON ({error}). Check the address, or download the file again.") from error
    if not isinstance(document, dict):
        raise InputError(f"{href}: not a STAC document (not a JSON object). Check the address.")
    return document


def links(document: dict[str, Any], relation: str, href: str) -> list[str]:
    """The absolute addresses of a document's links, in order.

    Args:
        document: a catalogue, collection or item.
        relation: `child`, `item`, …
        href: address of the document itself.
    """
    given = document.get("links")
    return [
        absolute(link["href"], href)
        for link in (given if isinstance(given, list) else [])
        if isinstance(link, dict) and link.get("rel") == relation and isinstance(link.get("href"), str)
    ]


def absolute(href: str, base: str) -> str:
    """Resolve an href against the address of its document.

    Only web addresses are URLs with query and fragment: paths, keys of S3 and `file:` addresses may contain `#` and
    `?`. A link between local files may be percent-encoded or not; the file that exists is used.
    """
    if is_http(base):
        try:
            return make_absolute_href(href, base)
        except ValueError:  # not an address; reading it raises the error
            return href
    if _ABSOLUTE.match(href):
        return href
    if is_s3(base):
        bucket, key = split_s3(base)
        return f"{S3}{bucket}{_joined(key, href)}"
    if url := FILE_URL.fullmatch(base):
        return base[: url.start(2)] + _joined(url[2], href)
    path = _joined(str(local_path(base)), href)
    decoded = _joined(str(local_path(base)), unquote(href))
    return decoded if decoded != path and not os.path.exists(path) and os.path.exists(decoded) else path


def parts_of(href: str) -> tuple[str, ...]:
    """Folders and file name of an address, percent-decoded if it is a URL."""
    if is_s3(href):
        return tuple(split_s3(href)[1].split("/"))
    return tuple(unquote(urlsplit(href).path).split("/")) if is_http(href) else local_path(href).parts


def with_absolute_hrefs(item: Item, place: str | None = None) -> Item:
    """The item with absolute hrefs.

    Relative hrefs are resolved against the item's address; absolute ones are kept.

    Args:
        item: STAC item; not modified.
        place: address of the file that it was read from; None if it has none, such as a row of a table. Its `self`
            link is then used, if that is absolute.
    """
    base = place or _self_of(item)
    assets = item.get("assets")
    if base is None or not isinstance(assets, dict) or not any(map(is_relative, _hrefs_in(assets))):
        return item
    return {**item, "assets": {name: _resolved(asset, base) for name, asset in assets.items()}}


def _self_of(item: Item) -> str | None:
    given = item.get("links")
    links = [link for link in given if isinstance(link, dict)] if isinstance(given, list) else []
    found = (link.get("href") for link in links if link.get("rel") == "self")
    return next((href for href in found if isinstance(href, str) and href and not is_relative(href)), None)


def _hrefs_in(assets: dict[str, Any]) -> Iterator[Any]:
    for asset in assets.values():
        if isinstance(asset, dict):
            yield asset.get("href")
            alternate = asset.get("alternate")
            yield from _hrefs_in(alternate if isinstance(alternate, dict) else {})


def _resolved(asset: Any, base: str) -> Any:
    if not isinstance(asset, dict):
        return asset
    found = {**asset, "href": absolute(asset["href"], base)} if is_relative(asset.get("href")) else asset
    alternate = found.get("alternate")
    if not isinstance(alternate, dict):
        return found
    return {**found, "alternate": {name: _resolved(one, base) for name, one in alternate.items()}}


def is_relative(href: Any) -> bool:
    """Whether an href is relative to its document."""
    return isinstance(href, str) and bool(href) and not href.startswith(("/", "~")) and not _ABSOLUTE.match(href)


def _joined(path: str, href: str) -> str:
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), href))
