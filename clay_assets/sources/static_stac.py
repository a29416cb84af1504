"""Static STAC catalogues: plain JSON files that link to one another, on a disk, a web server or S3.

Only what the pipeline needs of them: documents by their address, and links made absolute. A collection may link to
thousands of items, so nothing is read that was not asked for.
"""

from __future__ import annotations

import json
import posixpath
from typing import Any

from pystac.utils import make_absolute_href

from clay_assets.errors import InputError
from clay_assets.sources.downloads import read_bytes
from clay_assets.transport.locations import FILE, S3, is_http, is_s3, local_path, split_s3

CATALOG = "catalog.json"


def root_of(location: str) -> str:
    """The address of a catalogue's root document: a folder holds it as `catalog.json`."""
    if location.endswith(".json"):
        return location
    return f"{location.rstrip('/')}/{CATALOG}"


def read_document(href: str) -> dict[str, Any]:
    """A STAC document.

    Raises:
        InputError: there is no such file, or it is no JSON object.
        SourceError: it could not be read now.
    """
    content = read_bytes(href)
    try:
        document = json.loads(content)
    except ValueError as error:
        raise InputError(f"{href}: not JSON ({error}). Check the address, or download the file again.") from error
    if not isinstance(document, dict):
        raise InputError(f"{href}: not a STAC document (not a JSON object). Check the address.")
    return document


def links(document: dict[str, Any], relation: str, href: str) -> list[str]:
    """The absolute addresses that a document links to, in its own order.

    Args:
        document: a catalogue, collection or item.
        relation: `child`, `item`, …
        href: address of the document itself.
    """
    return [
        absolute(link["href"], href)
        for link in document.get("links") or []
        if isinstance(link, dict) and link.get("rel") == relation and isinstance(link.get("href"), str)
    ]


def absolute(href: str, base: str) -> str:
    """An address that may be relative to the document at another."""
    if is_http(base) or base.startswith(FILE):
        return make_absolute_href(href, base)
    if "://" in href:
        return href
    # Keys and paths are no URLs: they may hold characters such as #.
    bucket, key = split_s3(base) if is_s3(base) else ("", str(local_path(base)))
    path = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), href))
    return f"{S3}{bucket}{path}" if bucket else path
