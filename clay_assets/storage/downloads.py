"""Single files from elsewhere: their bytes, or fetched once, kept under our storage where asked, as a local path."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from clay_assets.access import fit_to_show, without_signature
from clay_assets.errors import InputError, SourceError
from clay_assets.storage.stores import Store, open_store

TIMEOUT = (10, 60)  # seconds to connect, seconds of silence while reading
ATTEMPTS = 5
CHUNK = 1 << 20  # bytes
BACK_OFF = wait_random_exponential(multiplier=0.5, max=20)  # seconds between attempts, with jitter
RETRY_AFTER_MAX = 60  # seconds; a server that asks for more is asked again after these
DENIED = {401, 403}
PASSING = {408, 429, 500, 502, 503, 504}  # HTTP statuses worth another attempt


@contextmanager
def local_copy(source: str, keep_in: Store | None = None, folder: str = "") -> Iterator[Path]:
    """A local path with the content of a file that may be remote.

    Args:
        source: local path, `http(s)://` or `s3://` address.
        keep_in: store that keeps what was fetched, so that it is fetched once; None to throw it away.
        folder: folder of that store.

    Raises:
        InputError: there is no such file, or it may not be read.
        SourceError: it could not be fetched now.
    """
    scheme = urlsplit(source).scheme
    if scheme in ("", "file") or len(scheme) == 1:  # one letter: a Windows drive
        path = Path(source.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise InputError(f"{source}: there is no such file.")
        yield path
        return
    name = PurePosixPath(urlsplit(source).path).name or "file"
    digest = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()  # two sources may share a name
    key = f"{folder}/{digest}-{name}"
    with tempfile.TemporaryDirectory(prefix="clay-") as temporary:
        path = Path(temporary) / name
        if keep_in is not None and keep_in.exists(key):
            path.write_bytes(keep_in.read(key))
        else:
            _fetch(source, path)
            if keep_in is not None:
                with keep_in.writing(key) as target:
                    shutil.copyfile(path, target)
        yield path


def _fetch(source: str, path: Path) -> None:
    if source.startswith("s3://"):
        path.write_bytes(read_bytes(source))
    else:
        fetch_url(source, path)


class BusyError(SourceError):
    """A web server wants to be asked again later.

    Attributes:
        wait: seconds that it asked for (Retry-After); 0 if it did not say.
    """

    def __init__(self, message: str, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class DeniedError(InputError):
    """A web server does not let us read."""


def check_answer(url: str, answer: requests.Response) -> None:
    """Raise what an answer's status means: BusyError where it may pass, InputError where it will not."""
    url = without_signature(url)
    if answer.status_code in PASSING:
        try:
            wait = Retry(retry_after_max=RETRY_AFTER_MAX).get_retry_after(answer.raw) or 0
        except InvalidHeader:
            wait = 0
        raise BusyError(f"{url}: the server answered {answer.status_code}. Try again later.", wait)
    if answer.status_code in DENIED:
        raise DeniedError(f"{url}: the server answered {answer.status_code} {answer.reason}. Check your rights to it.")
    if not answer.ok:
        raise InputError(f"{url}: the server answered {answer.status_code} {answer.reason}. Check the address.")


def retrying(attempts: int = ATTEMPTS) -> Retrying:
    """Attempts at something that raises SourceError: back-off with jitter, or as long as the server asks for."""

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(BACK_OFF(state), error.wait if isinstance(error, BusyError) else 0)

    return Retrying(
        retry=retry_if_exception_type(SourceError), stop=stop_after_attempt(attempts), wait=wait, reraise=True
    )


def read_bytes(source: str) -> bytes:
    """All bytes of a small file that may be remote, such as a STAC document, with bounded retries.

    Raises:
        InputError: there is no such file, or it may not be read.
        SourceError: it could not be read now.
        StorageError: the same of an S3 bucket.
    """
    if source.startswith("s3://"):
        bucket, _, key = source.removeprefix("s3://").partition("/")
        try:
            return _bucket(bucket).read(key)
        except FileNotFoundError as error:
            raise InputError(f"{source}: there is no such file.") from error
    if urlsplit(source).scheme in ("http", "https"):
        content: bytes = retrying()(_read_once, source)
        return content
    try:
        return Path(source.removeprefix("file://")).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"{source}: there is no such file ({error}).") from error


@cache
def _bucket(name: str) -> Store:
    """Keeps its client, which takes longer to make than a small file to read."""
    return open_store(f"s3://{name}")


def _read_once(url: str) -> bytes:
    try:
        answer = _session().get(url, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise SourceError(f"{url}: could not be read ({error}). Check the network, or try again later.") from error
    check_answer(url, answer)
    return answer.content


@cache
def _session() -> requests.Session:
    """Keeps its connections open, for the thousands of small files of a catalogue."""
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=64)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def fetch_url(url: str, path: Path) -> None:
    """Download a URL to a local path, whole or not at all, with bounded retries.

    Raises:
        InputError: the server says that there is no such file, or that it may not be read.
        SourceError: it could not be fetched now.
    """
    retrying()(_fetch_once, url, path)


def _fetch_once(url: str, path: Path) -> None:
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as answer:
            check_answer(url, answer)
            with path.open("wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
            expected = answer.headers.get("Content-Length")
            encoded = answer.headers.get("Content-Encoding")
            if expected and not encoded and path.stat().st_size != int(expected):
                raise SourceError(
                    f"{without_signature(url)}: the answer broke off after {path.stat().st_size} of {expected} bytes."
                )
    except requests.RequestException as error:
        said = without_signature(f"{url}: could not be fetched ({error})")
        raise SourceError(f"{said}. Check the network, or try again later.") from fit_to_show(error)
