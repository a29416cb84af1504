"""Reads, copies, measures and lists external files, local or remote.

A local copy can be kept in our storage, so that the file is downloaded once.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clay_assets.errors import InputError, SourceError
from clay_assets.storage.stores import Store
from clay_assets.transport import s3
from clay_assets.transport.access import Access, without_signature
from clay_assets.transport.http import AbsentError, exchange
from clay_assets.transport.locations import is_http, is_s3, local_path, name_of, split_s3
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

CHUNK = 1 << 20  # bytes
HEAD = 1 << 14  # bytes at the beginning of a file, to recognize a web page
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_LOGIN = re.compile(
    rb"log[\s_-]?in|log[\s_-]?on|sign[\s_-]?in|password|oauth|authenti[cf]|unauthori[sz]ed", re.IGNORECASE
)


class LoginError(InputError):
    """A web server sent its login page instead of a file."""


@contextmanager
def local_copy(
    source: str, keep_in: Store | None = None, folder: str = "", access: Access | None = None
) -> Iterator[Path]:
    """Local path of a file that may be remote.

    Args:
        source: local path, `http(s)://` or `s3://` address.
        keep_in: store that keeps the downloaded file; None: it is deleted afterwards.
        folder: folder of that store.
        access: how the file is accessed.

    Raises:
        InputError: file not found, or access denied.
        SourceError: the file could not be downloaded now.
    """
    if not (is_http(source) or is_s3(source)):
        path = local_path(source)
        if not path.is_file():
            raise InputError(f"{source}: file not found. Check the path.")
        yield path
        return
    name = name_of(source) or "file"
    digest = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()  # different sources may have the same name
    key = f"{folder}/{digest}-{name}"
    with tempfile.TemporaryDirectory(prefix="clay-") as temporary:
        path = Path(temporary) / name
        if keep_in is not None and keep_in.exists(key):
            path.write_bytes(keep_in.read(key))
        else:
            fetch(source, path, access)
            if keep_in is not None:
                with keep_in.writing(key) as target:
                    shutil.copyfile(path, target)
        yield path


def read_bytes(source: str, access: Access | None = None) -> bytes:
    """All bytes of a small file that may be remote, such as a STAC document, with bounded retries.

    Raises:
        InputError: file not found, or access denied.
        SourceError: the file could not be read now.
    """
    if is_http(source):
        return bytes(retrying()(_read_url, source, access))
    if is_s3(source):
        return bytes(retrying(WORK_ATTEMPTS)(_read_object, source, access or Access()))
    path = local_path(source)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: file not found ({error}). Check the path.") from error


def fetch(source: str, path: Path, access: Access | None = None) -> None:
    """Download a file to a local path, completely or not at all, with bounded retries.

    Raises:
        InputError: file not found, or access denied.
        SourceError: the file could not be downloaded now.
    """
    if is_http(source):
        retrying()(_fetch_url, source, path, access)
    elif is_s3(source):
        retrying(WORK_ATTEMPTS)(_fetch_object, source, path, access or Access())
    else:
        try:
            shutil.copyfile(local_path(source), path)
        except OSError as error:
            raise InputError(f"{source}: file not found ({error}). Check the path.") from error


def size_of(source: str, access: Access | None = None) -> int:
    """Size of a file in bytes, without reading it.

    Raises:
        InputError: file not found, access denied, or a web server does not send the size.
        SourceError: the host did not answer now.
    """
    if is_http(source):
        return int(retrying()(_size_of_url, source, access))
    if is_s3(source):
        access = access or Access()
        with s3.translating_errors(source, access.remedy(source)):
            head = access.s3().client().head_object(**s3.object_of(source), **s3.payer(access.requester_pays))
            return int(head["ContentLength"])
    try:
        return local_path(source).stat().st_size
    except OSError as error:
        raise InputError(f"{source}: file not found ({error}). Check the path.") from error


def exists_on_web(url: str, access: Access | None = None) -> bool:
    """Whether a web server has a file.

    Raises:
        SourceError: the server did not answer now.
    """
    return bool(retrying()(_exists, url, access))


def names_in(folder: str, access: Access | None = None, *, suffix: str = "", recursive: bool = False) -> list[str]:
    """Names of the files in a local folder or below an `s3://` prefix, relative to it, in order.

    Args:
        folder: path or `s3://` address.
        access: how the folder is accessed.
        suffix: only names with this ending.
        recursive: include subfolders.

    Raises:
        InputError: the folder cannot be listed.
        SourceError: the folder could not be listed now.
    """
    if is_s3(folder):
        access = access or Access()
        bucket, prefix = split_s3(folder.rstrip("/"))
        prefix = f"{prefix}/" if prefix else ""
        with s3.translating_errors(folder, access.remedy(folder)):
            pages = access.s3().client().get_paginator("list_objects_v2")
            options = {"Bucket": bucket, "Prefix": prefix, **s3.payer(access.requester_pays)}
            listed = pages.paginate(**options, **({} if recursive else {"Delimiter": "/"}))
            names = [item["Key"].removeprefix(prefix) for page in listed for item in page.get("Contents", ())]
    else:
        root = local_path(folder)
        try:
            if not root.is_dir():
                raise NotADirectoryError("not a folder")  # `rglob` would silently find nothing
            paths = root.rglob("*") if recursive else root.iterdir()
            names = [path.relative_to(root).as_posix() for path in paths if path.is_file()]
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed ({error}). Check the path.") from error
    # S3 consoles create an empty object for a folder.
    return sorted(name for name in names if name and name.endswith(suffix) and not name.endswith("/"))


def is_web_page(head: bytes) -> bool:
    """Whether a file begins like HTML: hosts with a login send their form instead of the file."""
    return _HTML.match(head) is not None


def page_in_place(href: str, head: bytes, found: str, access: Access | None = None) -> LoginError | SourceError:
    """The error to raise for a web page instead of a file.

    Args:
        href: address of the file.
        head: beginning of the page.
        found: address after redirects.
        access: how the file is accessed.
    """
    href = without_signature(href)
    if _LOGIN.search(head) or (found != href and _LOGIN.search(found.encode())):
        remedy = (access or Access()).remedy(href)
        return LoginError(f"{href}: the server sent its login page instead of the file. {remedy}")
    return SourceError(
        f"{href}: could not be read (the server sent a web page instead). Run again; if it persists check the "
        "address, and whether its host requires a login."
    )


def _read_url(url: str, access: Access | None) -> bytes:
    with exchange("GET", url, access) as answer:
        return answer.content


def _fetch_url(url: str, path: Path, access: Access | None) -> None:
    with exchange("GET", url, access, stream=True) as answer:
        with path.open("wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
        expected = answer.headers.get("Content-Length")
        encoded = answer.headers.get("Content-Encoding")
        size = path.stat().st_size
        if expected and not encoded and size != int(expected):
            raise SourceError(
                f"{without_signature(url)}: the download stopped after {size} of {expected} bytes. Run again."
            )
        with path.open("rb") as file:
            head = file.read(HEAD)
        if is_web_page(head):
            raise page_in_place(url, head, str(answer.url), access)


def _size_of_url(url: str, access: Access | None) -> int:
    with exchange("HEAD", url, access, headers={"Accept-Encoding": "identity"}) as answer:
        size = answer.headers.get("Content-Length", "")
        if not size.isdigit():
            raise InputError(
                f"{without_signature(url)}: the server does not send the size of the file, so a copy cannot be "
                'checked. Use imagery = "reference".'
            )
        return int(size)


def _exists(url: str, access: Access | None) -> bool:
    try:
        with exchange("HEAD", url, access):
            return True
    except AbsentError:
        return False


def _read_object(source: str, access: Access) -> bytes:
    with s3.translating_errors(source, access.remedy(source)):
        answer = access.s3().client().get_object(**s3.object_of(source), **s3.payer(access.requester_pays))
        body: bytes = answer["Body"].read()
    return body


def _fetch_object(source: str, path: Path, access: Access) -> None:
    named = s3.object_of(source)
    with s3.translating_errors(source, access.remedy(source)):
        bucket, key = named.pop("Bucket"), named.pop("Key")
        extra = {**named, **s3.payer(access.requester_pays)}
        access.s3().client().download_file(bucket, key, str(path), ExtraArgs=extra)
