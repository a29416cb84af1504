"""How raster files are opened, wherever they lie.

GDAL's own defaults neither retry a 503 nor time out, and each remote host wants its own manner (unsigned,
requester pays, a signed address). That is settled here once, for every stage. What the pixels mean is the
platforms' business.

GDAL options: https://gdal.org/en/stable/user/configoptions.html and .../user/virtual_file_systems.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import rasterio
from rasterio.errors import RasterioIOError

from clay_assets.access import Access, s3_endpoint
from clay_assets.errors import InputError, SourceError

__all__ = ["Access", "gdal_options", "gdal_path", "is_remote", "open_raster"]

HTTP_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds; GDAL doubles it and adds jitter
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # one GET for the header instead of listing the folder
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}

_ABSENT = ("no such file", "does not exist", "response code: 404", "nosuchkey", "nosuchbucket")
_DENIED = (
    "response code: 403",
    "access denied",
    "accessdenied",
    "response code: 401",
    "invalidaccesskeyid",
    "signaturedoesnotmatch",
)


def gdal_options(access: Access) -> dict[str, str]:
    """GDAL configuration for one kind of access, with S3 at `AWS_ENDPOINT_URL` where that is set."""
    options = dict(HTTP_OPTIONS)
    endpoint = s3_endpoint()
    if endpoint:
        parts = urlsplit(endpoint)
        options["AWS_S3_ENDPOINT"] = parts.netloc + parts.path.rstrip("/")
        options["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
    if access.unsigned:
        options["AWS_NO_SIGN_REQUEST"] = "YES"
    if access.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    return options


def gdal_path(href: str) -> str:
    """The name by which GDAL opens an href: `s3://` → `/vsis3/`, `https://` → `/vsicurl/`, else unchanged."""
    scheme = urlsplit(href).scheme
    if scheme == "s3":
        return "/vsis3/" + href.removeprefix("s3://")
    if scheme in ("http", "https"):
        return "/vsicurl/" + href
    return href.removeprefix("file://")


def is_remote(href: str) -> bool:
    """Whether an href is read over a network."""
    return urlsplit(href).scheme in ("s3", "http", "https")


@contextmanager
def open_raster(
    href: str, access: Access | None = None, *, overview_level: int | None = None
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for reading; pixels should be read inside the `with` block.

    Args:
        href: local path, `s3://`, `http(s)://` or `file://` address.
        access: how the source is reached; signed S3 by default.
        overview_level: index into the file's overviews, None for full resolution.

    Raises:
        InputError: the file is absent, forbidden, not a raster, or (locally) damaged.
        SourceError: a remote file could not be read now.
    """
    access = (access or Access()).to(href)
    address = access.sign(href) if access.sign else href
    options = {} if overview_level is None else {"overview_level": overview_level}
    with rasterio.Env(**gdal_options(access)):
        try:
            with rasterio.open(gdal_path(address), **options) as src:
                yield src
        except RasterioIOError as error:
            raise _explained(href, error) from error


def _explained(href: str, error: RasterioIOError) -> InputError | SourceError:
    cause = f"{error} {error.__cause__ or ''}".strip()
    said = cause.replace(Path(href).name, "").lower()  # a scene of 4 April has 0404 in its name
    if any(word in said for word in _ABSENT):
        return InputError(f"{href}: there is no such file ({cause}). Check the href, or make the items anew.")
    if any(word in said for word in _DENIED):
        return InputError(f"{href}: access was refused ({cause}). Check AWS credentials and requester-pays rights.")
    if is_remote(href):
        return SourceError(f"{href}: could not be read ({cause}). Run again; if it persists the file is damaged.")
    return InputError(f"{href}: is damaged or not a raster ({cause}). Fetch the file again.")
