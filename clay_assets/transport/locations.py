"""Addresses of files: local paths, `file://`, `s3://` and `http(s)://`. The one place that knows schemes.

`file://` addresses follow RFC 8089. An S3 key may hold any character, so `s3://` addresses are never parsed as URLs.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from clay_assets.errors import InputError

S3, FILE = "s3://", "file://"
HTTP = ("http://", "https://")
LOCAL_HOSTS = ("", "localhost")
CURL, VSIS3 = "/vsicurl/", "/vsis3/"  # before an address, for GDAL to read it by HTTP, from S3
AWS_BUCKET = re.compile(r"(.+?)\.s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com")


def is_s3(href: str) -> bool:
    """Whether an address is `s3://…`."""
    return href.startswith(S3)


def is_http(href: str) -> bool:
    """Whether an address is `http://…` or `https://…`."""
    return href.startswith(HTTP)


def is_remote(href: str) -> bool:
    """Whether an address is read over a network."""
    return is_s3(href) or is_http(href)


def split_s3(href: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an `s3://` address."""
    bucket, _, key = href.removeprefix(S3).partition("/")
    return bucket, key


def local_path(href: str) -> Path:
    """The path that a local address names, absolute.

    Raises:
        InputError: it is not local.
    """
    if href.startswith(FILE):
        parts = urlsplit(href)
        if parts.netloc not in LOCAL_HOSTS:
            raise InputError(f"{href}: not a file of this machine. Write file:///… or a path.")
        return Path(unquote(parts.path))
    if "://" in href:
        raise InputError(f"unsupported location {href!r}. Use a path, file://, s3:// or https://.")
    return Path(href).expanduser().absolute()


def host_of(href: str) -> str:
    """Host of a web address, with its port, or bucket of an `s3://` address; empty for local ones."""
    if is_s3(href):
        return split_s3(href)[0]
    return urlsplit(href).netloc.rpartition("@")[2].lower() if is_http(href) else ""


def name_of(href: str) -> str:
    """File name at the end of an address."""
    if is_s3(href):
        return PurePosixPath(split_s3(href)[1]).name
    return PurePosixPath(unquote(urlsplit(href).path)).name if is_http(href) else local_path(href).name


def join(folder: str, name: str) -> str:
    """Address of a file below a folder, bucket or URL."""
    return f"{folder.rstrip('/')}/{name}"


def gdal_path(href: str) -> str:
    """The name by which GDAL opens an address: `/vsis3/…`, `/vsicurl/…`, or a path."""
    if is_s3(href):
        return VSIS3 + href.removeprefix(S3)
    if is_http(href):
        return CURL + href
    return href if href.startswith("/vsi") else str(local_path(href))


def s3_address_of(href: str) -> tuple[str, str] | None:
    """Bucket and key of an address in S3, also of AWS's own `https://{bucket}.s3.{region}.amazonaws.com/{key}`."""
    if is_s3(href):
        return split_s3(href)
    parts = urlsplit(href)
    found = AWS_BUCKET.fullmatch(parts.netloc) if parts.scheme == "https" else None
    if found is None or parts.query:  # a signed address is read as it is
        return None
    return found[1], unquote(parts.path.removeprefix("/"))
