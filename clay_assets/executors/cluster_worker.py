"""The worker's side of a Dask cluster: check that the worker can run a run's jobs, then run them.

Functions of this module run in the workers' processes, with the versions installed there. The run's side is `cluster`.
"""

from __future__ import annotations

import hashlib
import pickle
import socket
import sys
import threading
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from traceback import format_exc
from typing import Any, NamedTuple, Protocol

from clay_assets.errors import ClayError, InputError, SourceError, StorageError

# Packages whose versions must match on workers: those that transport jobs, and those that affect the bytes of files.
SAME_ON_SCHEDULER = ("python", "clay_assets", "distributed", "dask", "cloudpickle")
SAME_ON_WORKERS = (*SAME_ON_SCHEDULER, "numpy", "pandas", "pyarrow", "geopandas", "shapely", "pyproj", "rasterio")
PACKAGE = Path(__file__).parents[1]


class StorageMark(Protocol):
    """A mark in the storage, which shows that a worker reaches the same storage."""

    def put(self) -> None:
        """Write the mark."""

    def check(self) -> None:
        """Raise a StorageError if the mark cannot be read, or no file can be written next to it."""

    def remove(self) -> None:
        """Remove the mark."""


class Requirements(NamedTuple):
    """A run's requirements for every worker, checked before its first job.

    Attributes:
        run: random id of the run.
        versions: see `installed_versions`.
        code: see `code_hash`.
        mark: a pickled `StorageMark`, or a pickled None.
    """

    run: str
    versions: Mapping[str, str]
    code: str
    mark: bytes


_fit_for = set[str]()  # runs whose requirements this worker process meets
_checking = threading.Lock()


async def check_worker(required: Requirements, dask_worker: Any) -> ClayError | None:
    """Why a worker cannot run a run's jobs, or None; Dask passes the worker because of the argument's name."""
    import asyncio

    await _stop_profiler(dask_worker)
    # In a thread, as the storage may be slow, and the worker must stay responsive.
    return await asyncio.to_thread(_shortcoming, required, dask_worker.address)


async def _stop_profiler(worker: Any) -> None:
    """Stop the profiler, which samples the frames of all threads: workers hung when a job started a thread.

    Only in Python 3.11: https://github.com/dask/distributed/issues/8616,
    https://github.com/python/cpython/issues/106883
    """
    if sys.version_info[:2] == (3, 11):
        for name in ("profile", "profile-cycle"):
            if name in worker.periodic_callbacks:
                worker.periodic_callbacks[name].stop()


class RunJob:
    """Runs a pickled job on a worker.

    Args:
        name: name of the job's function, shown by the scheduler and its dashboard.
        required: requirements for the worker.
    """

    def __init__(self, name: str, required: Requirements) -> None:
        self.__name__, self.required = name, required

    def __call__(self, job: bytes) -> tuple[bool | None, Any]:
        """Whether the job succeeded, and its result or error; None: the worker cannot run jobs, and why."""
        from distributed import get_worker
        from distributed.utils import sync

        worker = get_worker()
        if self.required.run not in _fit_for:  # the worker joined later
            sync(worker.loop, _stop_profiler, worker)
        address = worker.address
        shortcoming = _shortcoming(self.required, address)
        if shortcoming is not None:
            return None, shortcoming
        try:
            function, arguments, named = pickle.loads(job)
            return True, function(*arguments, **named)
        except StorageError as error:
            return False, StorageError(f"{_name(address)}: {error}")
        except BaseException as error:  # including those that would end the worker
            error.add_note(format_exc())  # as pickling drops the traceback
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:  # a library's error that cannot be pickled
                return False, SourceError(f"{type(error).__name__}: {error}")
            return False, error


def _shortcoming(required: Requirements, address: str) -> ClayError | None:
    with _checking:
        if required.run in _fit_for:
            return None
        remedy = "Install the same there as here, and restart it."
        if differences := version_differences(required.versions, installed_versions()):
            return InputError(f"{_name(address)}: {differences}. {remedy}")
        if required.code != code_hash():
            return InputError(f"{_name(address)}: other code of clay_assets, of the same version. {remedy}")
        mark: StorageMark | None = pickle.loads(required.mark)
        try:
            if mark is not None:
                mark.check()
        except StorageError as error:
            return StorageError(f"{_name(address)}: {error}")
        _fit_for.add(required.run)
        return None


def _name(address: str) -> str:
    return f"worker {address} on host {socket.gethostname()}"


@cache
def installed_versions() -> dict[str, str]:
    """Version of each of SAME_ON_WORKERS in this process."""
    return {name: comparable_version(name, _installed(name)) for name in SAME_ON_WORKERS}


def _installed(name: str) -> str | None:
    try:
        return ".".join(map(str, sys.version_info)) if name == "python" else version(name)
    except PackageNotFoundError:
        return None


def comparable_version(name: str, found: str | None) -> str:
    """A version reduced for comparison: for Python only the part that pickles depend on, such as 3.12."""
    return ".".join((found or "").split(".")[:2]) if name == "python" else found or "none"


def version_differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Versions of another process that differ from this one's, such as `numpy 1.26.4 (here: 2.1.0)`."""
    return ", ".join(f"{name} {there[name]} (here: {here[name]})" for name in there if there[name] != here[name])


@cache
def code_hash() -> str:
    """Hash of clay_assets' source code, as checkouts of the same version may differ."""
    code = hashlib.blake2b(digest_size=16)
    for path in sorted(path for kind in ("py", "toml") for path in PACKAGE.rglob(f"*.{kind}")):
        code.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return code.hexdigest()
