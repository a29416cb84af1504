"""Addresses of files: local paths, `file://`, `s3://` and `http(s)://`. The only module that handles schemes.

`file:` addresses follow RFC 8089. An S3 key may contain any character, so `s3://` addresses are never parsed as URLs;
only a version of the object may follow the key, as `?versionId=…`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from clay_assets.errors import InputError

S3 = "s3://"
HTTP = ("http://", "https://")
LOCAL_HOSTS = ("", "localhost")
CURL, VSIS3 = "/vsicurl/", "/vsis3/"  # GDAL's prefixes for HTTP and S3
# file:/path, file:///path, file://host/path: the forms of RFC 8089. Unencoded characters (`#`, `?`, spaces) belong to
# the path: a local file has neither query nor fragment.
FILE_URL = re.compile(r"file:(?://([^/]*))?(/.*)", re.IGNORECASE | re.DOTALL)
VERSION = re.compile(r"(.+)\?versionId=([^&?#/]+)")
# Characters that a URL may contain unencoded, RFC 3986.
WEB_ADDRESS = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
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


def is_file_url(href: str) -> bool:
    """Whether an address is `file:///…`, or one of its other forms."""
    return FILE_URL.fullmatch(href) is not None


def split_s3(href: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an `s3://` address."""
    bucket, _, key = href.removeprefix(S3).partition("/")
    versioned = VERSION.fullmatch(key)
    return bucket, versioned[1] if versioned else key


def version_of(href: str) -> str | None:
    """The object version in an `s3://` address (`?versionId=`); None: the latest."""
    versioned = VERSION.fullmatch(href) if is_s3(href) else None
    return versioned[2] if versioned else None


def local_path(href: str) -> Path:
    """The absolute path of a local address.

    Raises:
        InputError: the address is not local.
    """
    url = FILE_URL.fullmatch(href)
    if url:
        if (url[1] or "").lower() not in LOCAL_HOSTS:
            raise InputError(f"{href}: not a file of this machine. Write file:///… or a path.")
        return Path(os.fsdecode(unquote_to_bytes(url[2])))
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
    """GDAL's name of an address: `/vsis3/…`, `/vsicurl/…`, or a path."""
    if is_s3(href):
        return VSIS3 + href.removeprefix(S3)
    if is_http(href):
        return CURL + web_address(href)
    return href if href.startswith("/vsi") else str(local_path(href))


def web_address(href: str) -> str:
    """A web address as sent: characters that a URL cannot contain, such as a space or `ä`, are percent-encoded.

    Encoded as by `requests`, so that all readers request the same file; valid URLs are unchanged.
    """
    if WEB_ADDRESS.fullmatch(href):
        return href
    import requests  # here, so that definitions load without it

    try:
        return str(requests.Request("GET", href).prepare().url)
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"{href}: not a usable address ({error}). Check it.") from error


def s3_address_of(href: str) -> tuple[str, str] | None:
    """Bucket and key of an address in S3, including `https://{bucket}.s3.{region}.amazonaws.com/{key}`."""
    if is_s3(href):
        return split_s3(href)
    parts = urlsplit(href)
    found = AWS_BUCKET.fullmatch(parts.netloc) if parts.scheme == "https" else None
    if found is None or parts.query:  # a signed address is not rewritten
        return None
    return found[1], unquote(parts.path.removeprefix("/"))
