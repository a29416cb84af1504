"""How raster files are opened, wherever they lie.

GDAL's own defaults neither retry a 503 nor time out, and each remote host wants its own manner (unsigned,
requester pays, a signed address). That is settled here once, for every stage. What the pixels mean is the
platforms' business.

GDAL options: https://gdal.org/en/stable/user/configoptions.html and .../user/virtual_file_systems.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from clay_assets.access import Access, fit_to_show, s3_endpoint, without_signature
from clay_assets.errors import InputError, SourceError

__all__ = ["Access", "explaining", "gdal_options", "gdal_path", "is_remote", "open_raster", "read_mask"]

CACHE_BYTES = 128 << 20  # of raster blocks, for all files open; GDAL would take a twentieth of the machine
HTTP_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds; GDAL doubles it and adds jitter
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # one GET for the header instead of listing the folder
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}

CURL, S3 = "/vsicurl/", "/vsis3/"  # before an address, for GDAL to read it by HTTP, from S3
REMOTE = (CURL, S3)

_ABSENT = ("no such file", "does not exist", "response code: 404", "nosuchkey", "nosuchbucket")
_DENIED = (
    "response code: 403",
    "access denied",
    "accessdenied",
    "response code: 401",
    "invalidaccesskeyid",
    "signaturedoesnotmatch",
)


def gdal_options(access: Access) -> dict[str, str | int]:
    """GDAL configuration for one kind of access, with S3 at `AWS_ENDPOINT_URL` where that is set."""
    options: dict[str, str | int] = {"GDAL_CACHEMAX": CACHE_BYTES, **HTTP_OPTIONS}
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
        return S3 + href.removeprefix("s3://")
    if scheme in ("http", "https"):
        return CURL + href
    return href.removeprefix("file://")


def is_remote(href: str) -> bool:
    """Whether an href is read over a network."""
    return urlsplit(href).scheme in ("s3", "http", "https")


@contextmanager
def open_raster(
    href: str, access: Access | None = None, *, overview_level: int | None = None
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for reading; pixels should be read inside the `with` block.

    A signed address that cannot be opened is signed anew, once.

    Args:
        href: local path, `s3://`, `http(s)://` or `file://` address.
        access: how it is reached; S3 with the credentials of the environment by default.
        overview_level: index into the file's overviews, None for full resolution.

    Raises:
        InputError: the file is absent, forbidden, not a raster, or (locally) damaged.
        SourceError: a remote file could not be read now.
    """
    access = access or Access()
    options = {} if overview_level is None else {"overview_level": overview_level}
    with rasterio.Env(**gdal_options(access)):
        try:
            src = _opened(href, access, options)
        except RasterioIOError as error:
            told = _explained(href, error, signed=access.signer is not None)
            _forget_answers(gdal_path(href), told)
            raise told from fit_to_show(error)
        with src, explaining(src, href, access):
            yield src


@contextmanager
def explaining(src: rasterio.DatasetReader, href: str, access: Access) -> Iterator[None]:
    """Raises what a failed read of pixels means.

    `open_raster` does so too, but where several files are open at once it cannot know which of them failed.
    """
    try:
        yield
    except RasterioIOError as error:
        if access.signer is None:
            told = _explained(href, error)
            _forget_answers(src.name, told)
            raise told from error
        # It may have expired meanwhile: GDAL does not say why pixels cannot be read.
        access.signer.forget(src.name.removeprefix(CURL))
        raise SourceError(f"{href}: could not be read on ({_cause(error)}). Run again; it is signed anew.") from (
            fit_to_show(error)
        )


def _opened(href: str, access: Access, options: dict[str, int]) -> rasterio.DatasetReader:
    address = access.address(href)
    try:
        return rasterio.open(gdal_path(address), **options)
    except RasterioIOError as error:
        # Where it ends between two requests for a header, GDAL takes the file for damaged, and remembers it.
        if access.signer is None or _says(href, error, _ABSENT):
            raise
    access.signer.forget(address)
    return rasterio.open(gdal_path(access.address(href)), **options)


def _forget_answers(path: str, error: InputError | SourceError) -> None:
    """Let GDAL ask again for a remote file, where that may help: it remembers even an answer that broke off.

    What it remembers of a file that is not to be cached goes when that is closed.
    """
    if path.startswith(REMOTE) and isinstance(error, SourceError):
        with rasterio.Env(CPL_VSIL_CURL_NON_CACHED=":".join(REMOTE)), suppress(RasterioIOError):
            rasterio.open(path).close()


def _cause(error: RasterioIOError) -> str:
    return without_signature(f"{error} {error.__cause__ or ''}".strip())


def _says(href: str, error: RasterioIOError, words: tuple[str, ...]) -> bool:
    said = _cause(error).replace(Path(href).name, "").lower()  # a scene of 4 April has 0404 in its name
    return any(word in said for word in words)


def _explained(href: str, error: RasterioIOError, *, signed: bool = False) -> InputError | SourceError:
    cause = _cause(error)
    if _says(href, error, _ABSENT):
        return InputError(f"{href}: there is no such file ({cause}). Check the href, or make the items anew.")
    if _says(href, error, _DENIED):
        if signed:
            return InputError(f"{href}: access was refused, with a new signature too ({cause}). Check the item's href.")
        return InputError(f"{href}: access was refused ({cause}). Check AWS credentials and requester-pays rights.")
    if is_remote(href):
        return SourceError(f"{href}: could not be read ({cause}). Run again; if it persists the file is damaged.")
    return InputError(f"{href}: is damaged or not a raster ({cause}). Fetch the file again.")


def has_mask(src: rasterio.DatasetReader) -> bool:
    """Whether an open raster says anywhere which pixels are data: by an alpha band, a mask or a nodata tag."""
    said = any(MaskFlags.all_valid not in flags for flags in src.mask_flag_enums)
    return said or ColorInterp.alpha in src.colorinterp


def read_mask(src: rasterio.DatasetReader, window: Window) -> NDArray[np.uint8]:
    """Where an open raster has data: 0 where it has none; shape of the window.

    By its alpha band, else by the mask inside the file, else by its nodata tag: none where no band has any. Without
    any of them all of it is data, and no pixel is read. rasterio's own `dataset_mask` knows an alpha band only among
    two or four bands, and takes near infrared for one where there is a tag.
    """
    mask: NDArray[np.uint8]
    if not has_mask(src):
        return np.full((int(window.height), int(window.width)), 255, np.uint8)
    if ColorInterp.alpha in src.colorinterp:
        mask = src.read(src.colorinterp.index(ColorInterp.alpha) + 1, window=window)
        return mask
    mask = src.read_masks(1, window=window)
    if MaskFlags.per_dataset not in src.mask_flag_enums[0]:
        for band in src.indexes[1:]:
            np.maximum(mask, src.read_masks(band, window=window), out=mask)
    return mask
