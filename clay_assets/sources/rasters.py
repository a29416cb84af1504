"""Opens and reads raster files, local or remote.

GDAL's defaults neither retry a 503 nor time out, and hosts differ in how they are accessed (unsigned, requester pays, a
signed address, a token). This module handles that for all stages. Platforms interpret the pixels.

GDAL options: https://gdal.org/en/stable/user/configoptions.html and .../user/virtual_file_systems.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.session import DummySession
from rasterio.windows import Window

from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.sources.downloads import HEAD, LoginError, is_web_page, page_in_place
from clay_assets.transport import s3
from clay_assets.transport.access import Access, Secret, keep_signatures_out, safe_cause, without_signature
from clay_assets.transport.http import exchange, session
from clay_assets.transport.locations import (
    CURL,
    VSIS3,
    gdal_path,
    is_file_url,
    is_http,
    is_remote,
    is_s3,
    local_path,
    name_of,
    split_s3,
    version_of,
)
from clay_assets.transport.retries import gdal_options as retry_options
from clay_assets.transport.retries import retrying

__all__ = ["Access", "Raster", "gdal_options", "open_raster"]

CACHE_BYTES = 128 << 20  # GDAL's block cache for all open files; its default is a twentieth of the memory
HTTP_OPTIONS = {"CPL_VSIL_CURL_USE_HEAD": "NO"}
SIDE_CARS = "GDAL_DISABLE_READDIR_ON_OPEN"  # whether GDAL looks for `.msk`, `.aux.xml`, `.ovr`, `.tfw` and their like
NO_SIDE_CARS, ALL_SIDE_CARS = "EMPTY_DIR", "FALSE"  # the first reads the header in one GET, without listing the folder
VERSION_SECONDS = 12 * 3600  # validity of the signed address of an object version
HEADERS = "GDAL_HTTP_HEADERS"
RESET = {
    HEADERS: "",
    "GDAL_HTTP_UNSAFESSL": "NO",
    "GDAL_CURL_CA_BUNDLE": None,
}  # set by other files
REMOTE = (CURL, VSIS3)
UNDECODED = "\N{REPLACEMENT CHARACTER}"
TEXT = 80  # bytes to show of a response that is not a raster
BESIDE = (".msk", ".msk.ovr", ".ovr", ".aux.xml")
UNKNOWN_FORMAT = "not recognized as being in a supported file format"

ABSENT, DENIED = "absent", "denied"
# Names of GDAL's error classes, as rasterio chains them below its own error.
_CLASSES = {
    "CPLE_AWSBucketNotFoundError": ABSENT,
    "CPLE_AWSObjectNotFoundError": ABSENT,
    "CPLE_AWSAccessDeniedError": DENIED,
    "CPLE_AWSInvalidCredentialsError": DENIED,
    "CPLE_AWSSignatureDoesNotMatchError": DENIED,
}
_STATUSES = {401: DENIED, 403: DENIED, 404: ABSENT, 410: ABSENT}
_STATUS = re.compile(r"response.?code: (\d{3})", re.IGNORECASE)
# GDAL's messages, if the error class does not tell.
_WORDS = {
    "no such file": ABSENT,
    "does not exist": ABSENT,
    "nosuchkey": ABSENT,
    "nosuchbucket": ABSENT,
    "access denied": DENIED,
    "accessdenied": DENIED,
    "invalidaccesskeyid": DENIED,
    "signaturedoesnotmatch": DENIED,
}


keep_signatures_out("rasterio._base", "rasterio._env", "rasterio._err")


@dataclass(frozen=True)
class Raster:
    """An open raster that knows its href and access, and explains its errors.

    Attributes:
        href: address as stored.
        access: how it is accessed.
        dataset: the rasterio dataset; read pixels through `read` and `read_mask`, which explain errors.
        measured: bands, from 1, that are known to be measurements, even if the file tags one as alpha.
    """

    href: str
    access: Access
    dataset: rasterio.DatasetReader
    measured: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.dataset.height, self.dataset.width

    @property
    def alpha(self) -> tuple[int, ...]:
        """Alpha bands, from 1."""
        meanings = enumerate(self.dataset.colorinterp, start=1)
        return tuple(band for band, said in meanings if said == ColorInterp.alpha and band not in self.measured)

    @property
    def has_mask(self) -> bool:
        """Whether the file has any validity information: an alpha band, a mask or a nodata tag."""
        return bool(self.alpha) or any(self._masked(band) for band in self.dataset.indexes)

    def _masked(self, band: int) -> bool:
        """Whether a band has a mask or a nodata tag; alpha does not count."""
        flags = self.dataset.mask_flag_enums[band - 1]
        return MaskFlags.all_valid not in flags and MaskFlags.alpha not in flags

    def read(
        self, bands: int | Sequence[int] | None = None, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Pixels: (height, width) of one band, (bands, height, width) of several; None: all bands.

        Raises:
            InputError: the file is damaged.
            SourceError: a remote file could not be read to the end.
        """
        with self.translating_errors():
            pixels: NDArray[Any] = self.dataset.read(bands, window=window, out=out)
        return pixels

    def read_mask(self, window: Window) -> NDArray[np.uint8]:
        """Validity mask of a window, uint8: 0 for nodata; shape of the window.

        By the alpha band, else by the mask inside the file, else by the nodata tag: invalid where no band is valid.
        A file without any of them is valid everywhere, and no pixel is read. rasterio's own `dataset_mask` recognises
        an alpha band only among two or four bands, and uses near infrared if it is tagged as alpha.
        """
        dataset = self.dataset
        if not self.has_mask:
            return np.full((int(window.height), int(window.width)), 255, np.uint8)
        if self.alpha:
            alpha = self.read(self.alpha[0], window)
            return alpha if alpha.dtype == np.uint8 else np.where(alpha == 0, 0, 255).astype(np.uint8)
        with self.translating_errors():
            mask: NDArray[np.uint8] = dataset.read_masks(1, window=window)
            if MaskFlags.per_dataset not in dataset.mask_flag_enums[0]:
                for band in dataset.indexes[1:]:
                    np.maximum(mask, dataset.read_masks(band, window=window), out=mask)
        return mask

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Translate rasterio's errors in reading pixels to ours."""
        try:
            yield
        except RasterioIOError as error:
            if self.access.signer is None:
                translated = _translated(self.href, self.access, error)
                _clear_vsi_cache(self.dataset.name, translated)
                raise translated from safe_cause(error)
            # The signature may have expired: GDAL does not say why pixels cannot be read.
            self.access.signer.forget(self.dataset.name.removeprefix(CURL))
            raise SourceError(
                f"{self.href}: reading stopped halfway ({_cause(error)}). Run again, with a new "
                "signature; if it persists the file is damaged."
            ) from safe_cause(error)


def side_cars(href: str) -> list[Path]:
    """Sidecar files that GDAL reads with a local raster: masks, overviews, georeferencing."""
    if is_remote(href) or href.startswith("/vsi"):
        return []
    path = local_path(href)
    ending = path.suffix[1:]
    world = [f"{path.stem}.{end}" for end in (f"{ending[:1]}{ending[-1:]}w", f"{ending}w", "wld") if ending]
    beside = [path.with_name(name) for name in (*(path.name + end for end in BESIDE), *world)]
    return [other for other in beside if other.is_file()]


def needs_side_cars(href: str) -> bool:
    """Whether a local raster has different georeferencing, mask or metadata without its sidecars, except overviews.

    Raises:
        InputError: the file is not a raster.
    """
    if not [other for other in side_cars(href) if other.suffix != ".ovr"]:
        return False
    with open_raster(href) as whole:
        told = _told(whole.dataset)
        with rasterio.Env(**{SIDE_CARS: NO_SIDE_CARS}), rasterio.open(whole.dataset.name) as alone:
            return told != _told(alone)


def _told(dataset: rasterio.DatasetReader) -> tuple[Any, ...]:
    named = dataset.mask_flag_enums, dataset.nodatavals, dataset.colorinterp, dataset.scales, dataset.offsets
    return dataset.crs, dataset.transform, *named


def gdal_options(href: str, access: Access) -> dict[str, str | int]:
    """GDAL configuration for one file, except headers with secrets.

    While a file is open, its options also apply to files opened meanwhile, and in all threads if it was opened in the
    main thread. So all options that another file may have set are set for each file, especially headers with secrets.
    """
    options: dict[str, str | int] = {"GDAL_CACHEMAX": CACHE_BYTES, **retry_options(), **HTTP_OPTIONS}
    options[SIDE_CARS] = NO_SIDE_CARS if is_remote(href) or href.startswith(REMOTE) else ALL_SIDE_CARS
    usual = {name: os.environ.get(name, default) for name, default in RESET.items()}
    options |= {name: value for name, value in usual.items() if value is not None}
    if is_s3(href):
        options |= access.s3().gdal_options(split_s3(href)[0])
        options["AWS_REQUEST_PAYER"] = "requester" if access.requester_pays else ""
    return options


@contextmanager
def open_raster(
    href: str, access: Access | None = None, *, overview_level: int | None = None, measured: Sequence[int] = ()
) -> Iterator[Raster]:
    """Open a raster for reading; read its pixels with `Raster.read`, inside the `with` block.

    A local file is read with its sidecars, such as `.msk` and `.aux.xml`, a remote one without.

    Args:
        href: local path, `s3://`, `http(s)://` or `file://` address.
        access: how it is accessed; S3 with the credentials of the environment by default.
        overview_level: index into the file's overviews, None for full resolution.
        measured: bands, from 1, that are known to be measurements, even if the file tags one as alpha; ignored if the
            file has fewer bands.

    Raises:
        InputError: the file is missing, forbidden, not a raster, or (locally) damaged.
        SourceError: a remote file could not be read now.
    """
    access = access or Access()
    if not is_remote(href) and (is_file_url(href) or not href.startswith("/vsi")) and not local_path(href).exists():
        raise InputError(f"{href}: file not found. Check the href or re-materialise scene_picks.")
    address, headers = _address(href, access)
    options: dict[str, Any] = {} if overview_level is None else {"overview_level": overview_level}
    settings: dict[str, Any] = {**gdal_options(href, access), **headers}
    keys = DummySession()
    if is_s3(href):
        bucket, _ = split_s3(href)
        connection = access.s3().in_region_of(bucket)
        keys = connection.gdal_session()
        settings |= connection.gdal_options(bucket)
    with rasterio.Env(session=keys, **settings):
        try:
            dataset = _opened(href, address, access, options)
        except RasterioIOError as error:
            translated = _sent_in_place(href, access, error) or _translated(href, access, error)
            _clear_vsi_cache(gdal_path(address), translated)
            raise translated from safe_cause(error)
        with dataset:
            fewer = dataset.count < max(measured, default=0)  # so it is not the expected file
            yield Raster(href, access, dataset, () if fewer else tuple(measured))


def _address(href: str, access: Access) -> tuple[str, dict[str, str]]:
    """The address to open, and GDAL options with its headers.

    Redirects of a source with a secret are followed here, since GDAL would send the secret, unless it is in
    Authorization, to the other host.
    """
    if version_of(href):
        return _address_of_version(href, access)
    address = access.address(href)
    if not (access.headers and is_http(href)):
        return address, {}
    found = str(retrying()(_resolved, href, access))
    if not session().same_host(href, found):
        return found, {}
    # GDAL takes a comma as the end of a header, unless lines end with CRLF.
    lines = "".join(f"{name}: {value}\r\n" for name, value in access.http_headers().items())
    return found, {HEADERS: Secret(lines)}


def _address_of_version(href: str, access: Access) -> tuple[str, dict[str, str]]:
    """A signed web address and its headers: `/vsis3/` only supports the latest version of an object."""
    connection = access.s3().in_region_of(split_s3(href)[0])
    with s3.translating_errors(href, access.remedy(href)):
        address = connection.signed_address(href, VERSION_SECONDS, access.requester_pays)
    return address, {HEADERS: "x-amz-request-payer: requester\r\n"} if access.requester_pays else {}


def _resolved(href: str, access: Access) -> str:
    with exchange("GET", href, access, stream=True, headers={"Range": "bytes=0-0"}) as answer:
        return str(answer.url)


def _opened(href: str, address: str, access: Access, options: dict[str, Any]) -> rasterio.DatasetReader:
    try:
        return rasterio.open(gdal_path(address), **options)
    except RasterioIOError as error:
        # If it expires between two requests for a header, GDAL takes the file as damaged, and caches that.
        if access.signer is None or _kind(href, error) == ABSENT:
            raise
    access.signer.forget(address)
    return rasterio.open(gdal_path(access.address(href)), **options)


def _sent_in_place(href: str, access: Access, error: RasterioIOError) -> InputError | SourceError | None:
    """The error if a web server answered successfully with text instead of a raster; else None."""
    if not is_http(href) or UNKNOWN_FORMAT not in str(error):
        return None
    try:
        with exchange("GET", href, access, stream=True, headers={"Range": f"bytes=0-{HEAD - 1}"}) as answer:
            head, found = next(answer.iter_content(HEAD), b""), str(answer.url)
    except ClayError:
        return None
    if is_web_page(head):
        return page_in_place(href, head, found, access)
    text = " ".join(head[:TEXT].decode(errors="replace").split()).rstrip(UNDECODED)
    if not text.isprintable() or UNDECODED in text:
        return None
    return SourceError(
        f"{without_signature(href)}: could not be read (the server sent {text!r} instead). Run again; if it "
        "persists check the address."
    )


def _clear_vsi_cache(path: str, error: InputError | SourceError) -> None:
    """Drop GDAL's cached response for a remote file: it also caches truncated and wrong ones.

    GDAL itself drops the cache of uncacheable files when they are closed.
    """
    if path.startswith(REMOTE) and isinstance(error, SourceError | LoginError):
        options = {"CPL_VSIL_CURL_NON_CACHED": ":".join(REMOTE), "GDAL_HTTP_MAX_RETRY": "0"}
        with rasterio.Env(session=DummySession(), **options), suppress(RasterioIOError):
            rasterio.open(path).close()


def _cause(error: BaseException) -> str:
    return without_signature(f"{error} {error.__cause__ or ''}".strip())


def _kind(href: str, error: RasterioIOError) -> str | None:
    """ABSENT, DENIED or None: by the class of a cause, else by an HTTP status, else by GDAL's message."""
    link: BaseException | None = error
    while link is not None:
        if type(link).__name__ in _CLASSES:
            return _CLASSES[type(link).__name__]
        link = link.__cause__ or link.__context__
    said = _cause(error).replace(name_of(href), "")  # the name of a scene of 4 April contains 0404
    status = _STATUS.search(said)
    if status:
        return _STATUSES.get(int(status[1]))
    return next((kind for words, kind in _WORDS.items() if words in said.lower()), None)


def _translated(href: str, access: Access, error: RasterioIOError) -> InputError | SourceError:
    cause, kind = _cause(error), _kind(href, error)
    if kind == ABSENT:
        return InputError(f"{href}: file not found ({cause}). Check the href or re-materialise scene_picks.")
    if kind == DENIED:
        return InputError(f"{href}: access refused ({cause}). {access.remedy(href)}")
    if is_remote(href):
        return SourceError(f"{href}: could not be read ({cause}). Run again; if it persists the file is damaged.")
    return InputError(f"{href}: not a readable raster ({cause}). Download it again.")
