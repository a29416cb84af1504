"""Checks before a long run: settings, storage, sources, permissions and versions.

Checks run in parallel, each in its own daemon thread; a check that does not answer in time has failed. Nothing is
changed except for a small object that is written below `CLAY_STORAGE` and deleted. Secrets are removed from all
messages.
"""

from __future__ import annotations

import os
import platform as machine
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Literal

from clay_assets.errors import ClayError, InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform, Options
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.settings import Settings, read_settings
from clay_assets.storage import layout
from clay_assets.storage.stores import TEMPORARY, LocalStore, S3Store, Store, open_store
from clay_assets.transport.access import Access, without_signature
from clay_assets.transport.locations import is_http, is_s3, local_path

if TYPE_CHECKING:
    from clay_assets.catalogues.base import Catalogue
    from clay_assets.stac import Item

Status = Literal["ok", "warning", "failed"]
TIMEOUT = 60.0  # seconds per check
PACKAGE = "clay_assets"
GB = 10**9
LITTLE, TOO_LITTLE = 20 * GB, GB  # bytes free; sorting the largest cell of Clay v1 spills several GB
PROBE = "doctor-"  # prefix of the folder of the probe object
CONTENT = b"written by clay-assets doctor; may be deleted\n"
SAMPLE_CELL = "N45E006"  # a WorldCover cell in the Alps
LAND_COVER_SAMPLE = "mgrs_sample"
# Names of variables whose values are never printed.
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|SAS", re.IGNORECASE)
SHORTEST_SECRET = 6  # characters; redacting shorter values would hide ordinary words
USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s@'\"]*@|(?<=://)[^/\s@'\":]+@")
# Packages whose versions must match across a Dask cluster, as jobs and results are pickled.
EQUAL = ("python", "distributed", "dask", "cloudpickle", "msgpack", "numpy", "pandas")


@dataclass(frozen=True)
class Line:
    """The result of one check.

    Attributes:
        status: `ok`, `warning` or `failed`.
        what: name of the check.
        fact: the result, in words.
        remedy: what to do about it, as a sentence; empty if there is nothing to do.
    """

    status: Status
    what: str
    fact: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.what}: {self.fact}.{f' {self.remedy}' if self.remedy else ''}"


Check = Callable[[], Iterable[Line]]


def examine(platforms: Sequence[str] = (), timeout: float = TIMEOUT) -> list[Line]:
    """Check everything that a run needs.

    Args:
        platforms: keys of the platforms whose sources are checked; empty: all of the recipe.
        timeout: seconds per check.

    Raises:
        InputError: a platform is unknown.
    """
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown:
        raise InputError(f"{', '.join(unknown)}: unknown platform. Choose from {', '.join(sorted(PLATFORMS))}.")
    before, settings, recipe = _configuration()
    checks: dict[str, Check] = {"versions": lambda: _versions(settings), "Dagster": _dagster, "temporary files": _sort}
    if settings is not None:
        checks |= _of_settings(settings)
    if settings is not None and recipe is not None:
        wanted = [PLATFORMS[key] for key in sorted(platforms or PLATFORMS)]
        checks |= _of_sources(settings, recipe, wanted)
    _import_first(settings)
    return [_without_secrets(line) for line in (*before, *_side_by_side(checks, timeout))]


def _configuration() -> tuple[list[Line], Settings | None, Recipe | None]:
    lines: list[Line] = []
    try:
        settings = read_settings()
    except InputError as error:
        return [_failure("settings", InputError(line)) for line in str(error).splitlines()], None, None
    given = sorted(name for name, value in os.environ.items() if name.upper().startswith("CLAY_") and value)
    lines.append(Line("ok", "settings", f"{', '.join(given) or 'none'} set, defaults for the others"))
    try:
        recipe = load_recipe(settings.recipe)
    except InputError as error:
        return [*lines, Line("failed", "recipe", " ".join(str(error).split()).rstrip("."))], settings, None
    excluded = f", {len(recipe.exclude)} exclusions" if recipe.exclude else ""
    return [*lines, Line("ok", "recipe", f"{recipe.name} ({recipe.hash}){excluded}")], settings, recipe


def _of_settings(settings: Settings) -> dict[str, Check]:
    checks: dict[str, Check] = {"storage": lambda: _storage(settings)}
    if not is_s3(settings.storage):
        checks["free space in the storage"] = lambda: _room("free space in the storage", local_path(settings.storage))
    if settings.dask_scheduler:
        address = settings.dask_scheduler
        checks["Dask"] = lambda: _dask(address, settings.storage)
    return checks


def _of_sources(settings: Settings, recipe: Recipe, platforms: Sequence[AnyPlatform]) -> dict[str, Check]:
    checks: dict[str, Check] = {}
    for platform in platforms:
        scenes = _Scenes(settings, platform, recipe.options(platform.key))
        checks[scenes.what] = scenes
    samples = {platform.scenes.sample for platform in platforms}
    checks["WorldCover"] = lambda: _worldcover(settings.worldcover)
    if "naip_sample" in samples:
        checks["Natural Earth"] = lambda: _natural_earth(settings.natural_earth)
    if LAND_COVER_SAMPLE in samples:
        checks["tiling grid"] = lambda: _tiling_grid(settings)
        if settings.mgrs_sample:
            published = settings.mgrs_sample
            checks["published sample"] = lambda: [_reached("published sample", published, "CLAY_MGRS_SAMPLE")]
    return checks


def _import_first(settings: Settings | None) -> None:
    """Import what checks need before the timeout starts: it takes seconds, and threads would block each other."""
    import boto3.session  # noqa: F401
    import packaging.requirements  # noqa: F401

    import clay_assets.catalogues.opening
    import clay_assets.landcover.worldcover_files
    import clay_assets.sampling.natural_earth_files
    import clay_assets.sources.static_stac  # noqa: F401

    if os.environ.get("DAGSTER_HOME"):
        import dagster  # noqa: F401
    if settings is not None and settings.dask_scheduler:
        with suppress(ImportError):
            import distributed  # noqa: F401


# --- running checks ----------------------------------------------------------------------------------------------


def _side_by_side(checks: Mapping[str, Check], timeout: float) -> list[Line]:
    """The results in the order of the checks. Threads of checks that hang are abandoned."""
    answers: Queue[tuple[str, list[Line]]] = Queue()

    def run(what: str, check: Check) -> None:
        try:
            lines = list(check())
        except Exception as error:  # whatever a library raises must not stop the other checks
            lines = [_failure(what, error)]
        answers.put((what, lines))

    for what, check in checks.items():
        threading.Thread(target=run, args=(what, check), name=f"clay-doctor {what}", daemon=True).start()
    found: dict[str, list[Line]] = {}
    deadline = time.monotonic() + timeout
    with suppress(Empty):
        while len(found) < len(checks):
            what, lines = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            found[what] = lines
    late = f"did not answer within {timeout:g} s"
    remedy = "Check the address and the network, or allow more time with --timeout."
    return [line for what in checks for line in found.get(what, [Line("failed", what, late, remedy)])]


def _failure(what: str, error: Exception, status: Status = "failed") -> Line:
    """An error as a line; messages of a ClayError end with the remedy."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if not isinstance(error, ClayError):
        return Line(status, what, f"{type(error).__name__}: {text}", "Check the related settings.")
    fact, _, remedy = text.rpartition(". ")
    return Line(status, what, fact, f"{remedy}.") if fact else Line(status, what, text, "See docs/operate.md.")


def _without_secrets(line: Line) -> Line:
    secrets = [
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET and not value.isdecimal()
    ]

    def clean(text: str) -> str:
        text = USER_IN_ADDRESS.sub("***@", without_signature(text))
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    return replace(line, what=clean(line.what), fact=clean(line.fact), remedy=clean(line.remedy))


# --- this machine ------------------------------------------------------------------------------------------------


def _versions(settings: Settings | None) -> Iterator[Line]:
    """Compare Python and the libraries with the version bounds that the package declares."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        told = metadata.metadata(PACKAGE)
        requirements = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Line("warning", "versions", f"{PACKAGE} not installed, so version bounds are unknown", "Install it.")
        return
    python, bounds = machine.python_version(), str(told["Requires-Python"] or "")
    if python not in SpecifierSet(bounds, prereleases=True):
        yield Line("failed", "Python", f"{python}, not {bounds}", f"Install Python {bounds}.")
    extras = ("", "dask") if settings is not None and settings.dask_scheduler else ("",)
    looked_at = 0
    for one in requirements:
        if one.name == PACKAGE or (one.marker and not any(one.marker.evaluate({"extra": name}) for name in extras)):
            continue
        looked_at += 1
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield Line("failed", one.name, "not installed", f"Run pip install '{_plain(one)}'.")
            continue
        if not one.specifier.contains(version, prereleases=True):
            yield Line("failed", one.name, f"{version}, not {one.specifier}", f"Run pip install '{_plain(one)}'.")
    yield Line("ok", "versions", f"{PACKAGE} {told['Version']}, Python {python}, {looked_at} libraries checked")


def _plain(requirement: Any) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _sort() -> Iterator[Line]:
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        yield Line("failed", "temporary files", f"no usable folder ({error})", "Set TMPDIR to a folder with space.")
        return
    yield from _room("temporary files", folder, "The merge sorts on disk there: set TMPDIR to a larger disk.")


def _room(what: str, folder: Path, remedy: str = "Free space, or set CLAY_STORAGE to another place.") -> list[Line]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    status: Status = "failed" if free < TOO_LITTLE else "warning" if free < LITTLE else "ok"
    return [Line(status, what, f"{free / GB:,.1f} GB free in {folder}", "" if status == "ok" else remedy)]


def _dagster() -> Iterator[Line]:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        remedy = "Set DAGSTER_HOME to a folder, unless dg dev or a test provides one."
        yield Line("warning", "Dagster", "DAGSTER_HOME is not set, so run history is not kept", remedy)
        return
    folder = Path(home).expanduser()
    if not folder.is_absolute() or not folder.is_dir():
        yield Line("failed", "Dagster", f"DAGSTER_HOME={home} is not an absolute folder path", "Create the folder.")
        return
    from dagster import DagsterInstance

    try:
        with DagsterInstance.from_config(str(folder)) as instance:
            runs = instance.get_runs_count()
    except Exception as error:  # in its configuration or its database
        line = _failure("Dagster", error)
        remedy = f"Check {folder / 'dagster.yaml'} and the database configured there."
        yield replace(line, fact=f"the instance cannot be opened ({line.fact})", remedy=remedy)
        return
    yield Line("ok", "Dagster", f"{runs:,} runs in {folder}")


# --- the storage -------------------------------------------------------------------------------------------------


def _storage(settings: Settings) -> Iterator[Line]:
    try:
        store = open_store(settings.storage)
    except InputError as error:
        raise InputError(f"CLAY_STORAGE: {error}") from error
    if isinstance(store, S3Store) and store.connection.opened().anonymous:
        remedy = "Set AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role."
        yield Line("failed", "storage", f"{store.uri()}: AWS credentials not found", remedy)
        return
    with _probe(store) as key:
        if store.read(key) != CONTENT or key not in store.list(key.partition("/")[0]):
            yield Line("failed", "storage", f"{store.uri()}: returns other data than was written", "Check the storage.")
            return
    if store.exists(key):
        yield Line("failed", "storage", f"{store.uri(key)}: still listed after it was deleted", "Delete it.")
        return
    yield Line("ok", "storage", f"{store.uri()}: written, read, listed and deleted")


@contextmanager
def _probe(store: Store) -> Iterator[str]:
    """Key of a small temporary object. Folders that a local store creates for it are removed, too."""
    key = f"{PROBE}{uuid.uuid4().hex}/probe.txt"
    folders = [store.root / TEMPORARY, store.root, *store.root.parents] if isinstance(store, LocalStore) else []
    made = [folder for folder in folders if not folder.exists()]
    try:
        store.write(key, CONTENT)
        try:
            yield key
        finally:
            store.delete([key])
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


# --- sources -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scenes:
    """Checks that scenes of a platform are found, and that the files of one of them can be read."""

    settings: Settings
    platform: AnyPlatform
    options: Options

    @property
    def what(self) -> str:
        """Name of the check."""
        return f"scenes of {self.platform.key}"

    def __call__(self) -> Iterator[Line]:
        yield from self._secrets()
        if self.platform.scenes.sample_has_items:
            where, item = self.settings.linz_catalog, _item_of_static_catalogue(self.settings.linz_catalog)
        else:
            where = str(getattr(self.settings, self.platform.scenes.catalogue))
            item = _opened(where).any_item(self.platform)
        collection = self.platform.scenes.collection
        if item is None:
            variable = f"CLAY_{self.platform.scenes.catalogue.upper()}"
            remedy = f"Check {variable}, or select other platforms with --platform."
            yield Line("failed", self.what, f"{where}: no items of collection {collection}", remedy)
            return
        yield Line("ok", self.what, f"{where}: has items{f' of {collection}' if collection else ''}")
        yield self._file(item)

    def _secrets(self) -> Iterator[Line]:
        """Check the variables with keys and tokens that its files need."""
        for way in self.platform.files.access:
            try:
                way.http_headers()
                if way.keys is not None:
                    way.s3()
            except InputError as error:
                yield _failure(f"credentials of {self.platform.key}", error)

    def _file(self, document: Item) -> Line:
        """Check that a file of an item can be read as its platform requires: signed, requester-pays or with keys."""
        from clay_assets.sources.downloads import size_of

        what = f"files of {self.platform.key}"
        try:
            item = self.platform.read_item(document)
            name = next((one for one in self.platform.asset_names if one in item["assets"]), None)
            if name is None:
                remedy = "Check that the catalogue has this platform."
                return Line("warning", what, f"{item['id']}: required assets not found", remedy)
            href = self.platform.href(item["assets"][name], self.options)
        except InputError as error:
            return _failure(what, error, "warning")  # other items may be valid
        access = self.platform.access_to(href)
        if access.requester_pays and access.s3().opened().anonymous:
            remedy = "The bucket is requester-pays: set AWS credentials of an account that may be billed."
            return Line("failed", what, f"{href}: AWS credentials not found", remedy)
        try:
            size = size_of(href, access)
        except ClayError as error:
            return _failure(what, error)
        billed = ", at your account's cost" if access.requester_pays else ""
        return Line("ok", what, f"{href}: can be read{billed}, {size:,} bytes")


def _opened(location: str) -> Catalogue:
    """A catalogue that gives up early."""
    from clay_assets.catalogues.opening import open_catalogue
    from clay_assets.catalogues.stac_api import ApiCatalogue

    if is_http(location):
        return ApiCatalogue(location, requests_in_flight=1, attempts=2)
    return open_catalogue(location, 1)


def _item_of_static_catalogue(location: str) -> Item | None:
    """The first item of the first collection of a static catalogue."""
    from clay_assets.sources.static_stac import links, read_document, root_of, with_absolute_hrefs

    root = root_of(location)
    for child in links(read_document(root), "child", root)[:1]:
        for href in links(read_document(child), "item", child)[:1]:
            return with_absolute_hrefs(read_document(href), href)
    return None


def _worldcover(location: str) -> list[Line]:
    from clay_assets.landcover.worldcover_files import href_of, stored_cells_of
    from clay_assets.sources.downloads import exists_on_web

    access = Access(unsigned=True)
    if not is_http(location):
        cells = stored_cells_of(location, access) or set()
        return [Line("ok", "WorldCover", f"{location}: holds {len(cells):,} files")]
    href = href_of(location, SAMPLE_CELL)
    if exists_on_web(href, access):
        return [Line("ok", "WorldCover", f"{href}: found")]
    remedy = "Check CLAY_WORLDCOVER, unless it is a subset without the Alps."
    return [Line("warning", "WorldCover", f"{href}: file not found", remedy)]


def _natural_earth(location: str) -> Iterator[Line]:
    from clay_assets.sampling.natural_earth_files import FEATURE_LAYERS, Files

    with ExitStack() as stack:
        files = Files(location, None, stack)
        if files.root is None:
            yield _reached(
                "Natural Earth", f"{location.rstrip('/')}/{files.find(FEATURE_LAYERS[0])}", "CLAY_NATURAL_EARTH"
            )
            return
        missing = [layer.file for layer in FEATURE_LAYERS if files.find(layer) is None]
    if missing:
        remedy = "Add the files, or change CLAY_NATURAL_EARTH."
        yield Line("failed", "Natural Earth", f"{location}: missing {', '.join(missing)}", remedy)
        return
    yield Line("ok", "Natural Earth", f"{location}: has all {len(FEATURE_LAYERS)} layers")


def _tiling_grid(settings: Settings) -> list[Line]:
    store = open_store(settings.storage)
    made = layout.table("mgrs_grid")
    if store.exists(made):
        return [Line("ok", "tiling grid", f"{store.uri(made)}: materialised")]
    return [_reached("tiling grid", settings.mgrs_grid, "CLAY_MGRS_GRID")]


def _reached(what: str, address: str, variable: str) -> Line:
    """Check that an external file exists."""
    from clay_assets.sources.downloads import exists_on_web, size_of

    if is_http(address):
        there = exists_on_web(address)
    else:
        there = bool(size_of(address, Access(unsigned=True) if is_s3(address) else None))
    if there:
        return Line("ok", what, f"{address}: found")
    return Line("failed", what, f"{address}: file not found", f"Check {variable}.")


# --- the cluster -------------------------------------------------------------------------------------------------


def _dask(address: str, storage: str) -> Iterator[Line]:
    try:
        from distributed import Client
    except ImportError:
        remedy = "Run pip install 'clay_assets[dask]'."
        yield Line("failed", "Dask", "CLAY_DASK_SCHEDULER is set, but distributed is not installed", remedy)
        return
    try:
        client = Client(address, timeout=TIMEOUT / 3, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: no scheduler answers ({error}). Check CLAY_DASK_SCHEDULER.") from error
    with client:
        told = client.get_versions()
        workers = told["workers"]
        if not workers:
            yield Line("failed", "Dask", f"{address}: no workers connected", "Start some: dask worker ADDRESS.")
            return
        yield from _different(told)
        with _probe(open_store(storage)) as key:
            found = client.run(_on_worker, storage, key, on_error="return")
    ours = metadata.version(PACKAGE)
    for worker, answer in sorted(found.items()):
        if isinstance(answer, Exception):
            remedy = "Install clay_assets there, and let it reach CLAY_STORAGE under the same name."
            yield Line(
                "failed", f"Dask worker {worker}", f"{type(answer).__name__}: {' '.join(str(answer).split())}", remedy
            )
        elif answer != ours:
            remedy = "Install the same version everywhere."
            yield Line("failed", f"Dask worker {worker}", f"{PACKAGE} {answer}, here {ours}", remedy)
    yield Line("ok", "Dask", f"{address}: {len(workers)} workers connected")


def _different(told: Mapping[str, Any]) -> Iterator[Line]:
    """Packages whose versions differ between here, the scheduler and the workers."""
    of = {"here": told["client"], "the scheduler": told["scheduler"], **told["workers"]}
    for package in EQUAL:
        versions: dict[str, list[str]] = {}
        for where, known in of.items():
            version = (known or {}).get("packages", {}).get(package)
            versions.setdefault(
                ".".join(map(str, version)) if isinstance(version, list | tuple) else str(version), []
            ).append(where)
        if len(versions) > 1:
            listed = "; ".join(f"{version} ({', '.join(where)})" for version, where in sorted(versions.items()))
            yield Line("failed", f"Dask, {package}", f"differs: {listed}", "Install the same version everywhere.")


def _on_worker(storage: str, key: str) -> str:
    """This package's version on a worker, after the worker has read a file written here."""
    open_store(storage).read(key)
    return metadata.version(PACKAGE)
