"""Reads byte ranges of local and remote files, and detects changed files.

Conditional requests (`If-Match`) are not used: a weak ETag never matches, and some servers answer 412 without a reason.
The ETag of every response is compared instead (RFC 9110, sections 8.8 and 14).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from clay_assets.errors import InputError, SourceError
from clay_assets.sources.downloads import HEAD, is_web_page, page_in_place
from clay_assets.transport import s3
from clay_assets.transport.access import Access, without_signature
from clay_assets.transport.http import AbsentError, DeniedError, exchange
from clay_assets.transport.locations import is_http, is_s3, local_path
from clay_assets.transport.object_ranges import read_range
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
NANOSECONDS = 1_000_000_000
Data = bytes | memoryview


@dataclass(frozen=True)
class Version:
    """Identifies a version of a file.

    Attributes:
        size: bytes.
        etag: entity tag of a remote file, if the server sends one.
        mtime_ns: time of the last change, nanoseconds since 1970; to the second for remote files, if it is sent.
    """

    size: int
    etag: str | None = None
    mtime_ns: int | None = None

    def same_as(self, other: Version) -> bool:
        """Whether both have the same content, as far as known; a copy with the same ETag may be newer."""
        if self.size != other.size:
            return False
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") == other.etag.removeprefix("W/")
        return self.mtime_ns is None or other.mtime_ns is None or self.mtime_ns == other.mtime_ns


def fetch(href: str, access: Access, start: int, stop: int) -> tuple[Data, Version]:
    """Bytes `start` to `stop` of a file, fewer if it ends before, with bounded retries; and its version.

    Raises:
        InputError: file not found, access denied, or the server ignores ranges.
        SourceError: the file could not be read now.
    """
    data: Data
    if is_http(href):
        data, version = retrying()(_of_url, href, access, start, stop)
    elif is_s3(href):
        data, version = retrying(WORK_ATTEMPTS)(_of_object, href, access, start, stop)
    else:
        data, version = _of_file(href, start, stop)
    return data, version


def fetch_same(href: str, access: Access, start: int, stop: int, known: Version) -> Data:
    """Bytes of a file in a known version.

    Raises:
        InputError: as `fetch`, or the file has changed.
        SourceError: the file could not be read now.
    """
    try:
        data, found = fetch(href, access, start, stop)
    except (AbsentError, DeniedError):
        raise
    except InputError:
        # A shortened file lacks the range, and its server does not say why.
        check_same(href, known, fetch(href, access, 0, 1)[1])
        raise
    check_same(href, known, found)
    return data


def check_same(href: str, known: Version, found: Version) -> None:
    """Raise InputError if a file changed."""
    if not known.same_as(found):
        raise InputError(
            f"{without_signature(href)}: changed after its header was read. Read the header again (delete "
            "the scene's file below training/cog_headers and re-materialise its platform and year)."
        )


def version_now(href: str, access: Access) -> Version:
    """The current version of a file, with one request.

    Raises:
        InputError, SourceError: as `fetch`.
    """
    return fetch(href, access, 0, 1)[1]


def _of_file(href: str, start: int, stop: int) -> tuple[bytes, Version]:
    try:
        with local_path(href).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            data = os.pread(file.fileno(), stop - start, start)
    except FileNotFoundError as error:
        raise InputError(f"{href}: file not found. Check the href or re-materialise scene_picks.") from error
    except OSError as error:
        raise InputError(f"{href}: could not be read ({error}). Check the file's permissions.") from error
    return data, Version(status.st_size, mtime_ns=status.st_mtime_ns)


def _of_url(href: str, access: Access, start: int, stop: int) -> tuple[bytes, Version]:
    wanted = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    with exchange("GET", href, access, stream=True, headers=wanted) as answer:
        size = answer.headers.get("Content-Length", "")
        if answer.status_code != 206 and (start or not size.isdigit() or int(size) > stop):
            head = next(answer.iter_content(HEAD), b"")
            if is_web_page(head):
                raise page_in_place(href, head, str(answer.url), access)
            raise InputError(
                f"{without_signature(href)}: the server ignores byte ranges, so no part of the file can be read. "
                'Copy the file (imagery = "copy"), or ask its host for ranges.'
            )
        data = answer.content
        if answer.status_code != 206:
            return data, _version(len(data), answer.headers)
        return _checked(href, start, stop, data, answer.headers.get("Content-Range", ""), answer.headers)


def _of_object(href: str, access: Access, start: int, stop: int) -> tuple[Data, Version]:
    from botocore.exceptions import ClientError

    connection = access.s3()
    quick = read_range(connection, href, start, stop, requester_pays=access.requester_pays)
    if quick is not None:
        return quick.data, Version(quick.size, quick.etag, _nanoseconds(quick.changed))
    named = {**s3.object_of(href), **s3.payer(access.requester_pays)}
    with s3.translating_errors(href, access.remedy(href)):
        try:
            answer = connection.client().get_object(**named, Range=f"bytes={start}-{stop - 1}")
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 416:
                raise
            raise InputError(f"{href}: the file ends before byte {start}. Download it again.") from error
        data: bytes = answer["Body"].read()
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    told = {"ETag": headers.get("etag"), "Last-Modified": headers.get("last-modified")}
    return _checked(href, start, stop, data, str(answer.get("ContentRange", "")), told)


def _checked(
    href: str, start: int, stop: int, data: bytes, said: str, headers: Mapping[str, str | None]
) -> tuple[bytes, Version]:
    """Check that the response has the requested range."""
    found = _RANGE.fullmatch(said.strip())
    first, last, size = (int(number) for number in found.groups()) if found else (-1, -1, -1)
    if first != start or last + 1 != min(stop, size) or len(data) != last + 1 - first:
        raise SourceError(
            f"{without_signature(href)}: asked for bytes {start} to {stop - 1}, the server sent {len(data)} bytes as "
            f"{said!r}. Run again; if it persists check the server."
        )
    return data, _version(size, headers)


def _version(size: int, headers: Mapping[str, str | None]) -> Version:
    changed = headers.get("Last-Modified")
    try:
        mtime = _nanoseconds(parsedate_to_datetime(changed) if changed else None)
    except ValueError:
        mtime = None
    return Version(size, headers.get("ETag") or None, mtime)


def _nanoseconds(changed: datetime | None) -> int | None:
    return None if changed is None else int(changed.timestamp()) * NANOSECONDS
