"""Fixtures for all tests: real servers, real data, and an isolated environment.

A server starts when the first test needs it, once per test process (with `-n 2`, once per worker, each on its own
ports); S3 and the miniature planet are shared by all workers. Tests that cannot run on this machine are skipped and
listed at the end under NOT RUN; they are errors if `CI` is set. Fixtures of one stage belong in the conftest.py of its
folder.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from clay_assets.demo.planet import Planet, make_planet
from clay_assets_tests.oracle.environment import OracleUnavailableError, Readers, Stacchip
from clay_assets_tests.servers.daemon import ServerUnavailableError
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.process import ServerProcess
from clay_assets_tests.servers.s3 import S3Server
from clay_assets_tests.servers.shared_s3 import shared_s3
from clay_assets_tests.servers.stac_api import StacApi

if TYPE_CHECKING:
    from clay_assets_tests.chain import Chain

REPOSITORY = Path(__file__).parents[1]
# Modules that take minutes; started early, so that no worker is left alone with one.
LONG = (
    "platforms/test_add_a_platform.py",
    "real/test_real_platforms.py",
    "real/test_real_chain.py",
    "training/with_torch/test_train_page.py",
    "chips/test_index_scenes.py",
    "chips/test_merge.py",
    "catalogues/test_footprints.py",
    "transport/test_s3.py",
    "transport/test_regions.py",
    "orchestration/test_dg.py",
)
EXPENSIVE_FIXTURES = (
    "built",
    "deployment",
)  # fixtures: the whole chain, run once; PostgreSQL, S3 and Dagster's processes
# Marker → fixtures; tests that need one of them get the marker. `make check` excludes all of these tests.
MARKERS = {
    "server": ("stac_api", "s3_server", "servers_apart", "deployment", "stacchip", "readers"),
    "browser": ("ui", "page", "browser", "chromium"),
    "chain": ("built", "planet", "deployment", "dagster_home"),
}
GARBAGE_FROM = 50_000  # allocations before a garbage collection; the default of 700 takes a tenth of the suite's time
BUILDING = 1200  # seconds for a test of the whole chain on a busy machine, including the chain
NOT_RUN = "NOT RUN: "
TORCH, WITH_TORCH = "PyTorch", "training/with_torch/"  # what is missing, and the tests that need it
SCREENSHOT = "screenshot"  # property of a test: path of a screenshot
RECORD = "--record-values"  # store the planet's values instead of comparing them with the stored ones


def not_run(what: str, why: object) -> NoReturn:
    """Skip the test with a reason that is listed in the summary; fail it in continuous integration."""
    reason = f"{NOT_RUN}{what}: {why}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_configure() -> None:
    """Collect garbage less often, as each process of the suite holds millions of library objects."""
    gc.set_threshold(GARBAGE_FROM)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option used by `make expected`."""
    parser.addoption(RECORD, action="store_true", help="store the values that `versions` compares with")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep tests that share an expensive fixture on one worker, and otherwise those of a module or of its own group."""
    if item.get_closest_marker("xdist_group"):  # a second marker would make another group, of both names
        return
    place = _place(item)
    group = EXPENSIVE_FIXTURES[place] if place < len(EXPENSIVE_FIXTURES) else item.nodeid.partition("::")[0]
    item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the most expensive tests; the first test that needs the whole chain waits for it."""
    items.sort(key=_place)
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "built" in fixtures:
            item.add_marker(pytest.mark.timeout(BUILDING))
        for marker, needed in MARKERS.items():
            if not set(needed).isdisjoint(fixtures):
                item.add_marker(marker)


def _place(item: pytest.Item) -> int:
    """Position of a test's fixture in EXPENSIVE_FIXTURES, then of its module in LONG; last if it is in neither."""
    fixtures, module = getattr(item, "fixturenames", ()), item.nodeid.partition("::")[0]
    costly = [*(name in fixtures for name in EXPENSIVE_FIXTURES), *(module.endswith(name) for name in LONG)]
    return costly.index(True) if True in costly else len(costly)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the screenshots, and which tests were not run and why, once each."""
    ended = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    taken = {str(value) for report in ended for name, value in report.user_properties if name == SCREENSHOT}
    if taken:
        terminalreporter.section("screenshots")
        for path in sorted(taken):
            terminalreporter.write_line(path)
    reports = terminalreporter.stats.get("skipped", [])
    without = sum(f"{NOT_RUN}{TORCH}" in str(report.longrepr) for report in reports)
    need = [report for report in [*ended, *reports] if WITH_TORCH in report.nodeid]
    if need:
        terminalreporter.section("tests that need PyTorch")
        terminalreporter.write_line(f"{len({one.nodeid for one in need})} tests, {without} skipped for want of it")
    reasons = [str(r.longrepr[2]) for r in reports if isinstance(r.longrepr, tuple)]
    found = [m.group(0) for reason in reasons if (m := re.search(rf"{NOT_RUN}.*", reason, re.DOTALL))]
    if found:
        terminalreporter.section("not run")
        for reason in sorted(set(found)):
            terminalreporter.write_line(f"{reason} [{found.count(reason)} tests]")


def _folder_of_all_workers(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove outside settings and credentials, and give Dagster its own home."""
    home = tmp_path_factory.mktemp("dagster_home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "CLAY_", "DAGSTER_", "GDAL_HTTP_", "CPL_VSIL_", "VSI_")) and name not in (
                "CLAY_REAL_DATA",
                "CLAY_ARTIFACTS",
            ):
                patch.delenv(name)
        # No ~/.aws, and no requests to a cloud machine's metadata service.
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("DAGSTER_HOME", str(home))
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"])))
        yield


@pytest.fixture
def dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home for this test only; `DAGSTER_HOME` points to it."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of published data for offline use: `CLAY_REAL_DATA`, or else `../shared/data` of the repository."""
    folder = Path(os.environ.get("CLAY_REAL_DATA", REPOSITORY.parent / "shared" / "data")).resolve()
    if not (folder / "MANIFEST.md").is_file():
        reason = f"{NOT_RUN}real data: there is no {folder} (set CLAY_REAL_DATA to the folder with MANIFEST.md)"
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def stac_api() -> Iterator[StacApi]:
    """A STAC API on PostgreSQL; collections persist between tests: use unique names, or `clear()`."""
    try:
        server = StacApi()
    except ServerUnavailableError as error:
        not_run("STAC API on PostgreSQL with PostGIS", error)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server, one for all workers; sets no environment variables (`s3_bucket` does)."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(shared_s3(_folder_of_all_workers(tmp_path_factory) / "s3"))
        except ServerUnavailableError as error:
            not_run("S3 on Ceph RGW", error)
        yield server


@dataclass(frozen=True)
class Bucket:
    """An empty bucket; the AWS variables of the environment point to its server.

    Attributes:
        name: name of the bucket.
        server: the S3 server.
        client: boto3 client for it.
    """

    name: str
    server: S3Server
    client: Any

    @property
    def url(self) -> str:
        """`s3://name`."""
        return f"s3://{self.name}"

    def keys(self, prefix: str = "") -> list[str]:
        """All keys below a prefix, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(row["Key"] for page in pages for row in page.get("Contents", []))


@contextmanager
def _bucket(server: S3Server) -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield Bucket(server.new_bucket(f"clay-{uuid.uuid4().hex[:12]}"), server, server.client())


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> Iterator[Bucket]:
    """A new bucket for this test, in an environment with the AWS SDK's variables."""
    with _bucket(s3_server) as bucket:
        yield bucket


@pytest.fixture(scope="module")
def module_s3_bucket(s3_server: S3Server) -> Iterator[Bucket]:
    """A bucket shared by all tests of a module."""
    with _bucket(s3_server) as bucket:
        yield bucket


@pytest.fixture
def gdal_s3(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """`s3_bucket` with GDAL's endpoint variables, to open `/vsis3/` without our code."""
    for name, value in s3_bucket.server.gdal_env.items():
        monkeypatch.setenv(name, value)
    return s3_bucket


@pytest.fixture(scope="session")
def servers_apart() -> Iterator[ServerProcess]:
    """The process in which proxies and file servers run."""
    servers = ServerProcess()
    yield servers
    servers.stop()


@pytest.fixture
def fault_proxy(servers_apart: ServerProcess) -> Iterator[Callable[[str], FaultProxy]]:
    """Return a function that starts a `FaultProxy` in front of a URL; all are stopped after the test."""
    with ExitStack() as stack:

        def start(url: str) -> FaultProxy:
            proxy = servers_apart.fault_proxy(url)
            stack.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture
def file_server(servers_apart: ServerProcess) -> Iterator[Callable[[Path], FileServer]]:
    """Return a function that serves a folder over HTTP; all are stopped after the test."""
    with ExitStack() as stack:

        def start(folder: Path) -> FileServer:
            server = servers_apart.file_server(folder)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def stacchip() -> Stacchip:
    """The published stacchip library, as an independent reference for chip indexes."""
    try:
        return Stacchip()
    except OracleUnavailableError as error:
        not_run("comparison with stacchip", error)


@pytest.fixture(scope="session")
def readers() -> Readers:
    """Parquet readers in a separate environment."""
    try:
        return Readers()
    except OracleUnavailableError as error:
        not_run("readers of the merged index", error)


@pytest.fixture(scope="session")
def planet(tmp_path_factory: pytest.TempPathFactory) -> Planet:
    """The miniature planet, shared by all workers. Tests must not change its files."""
    folder = _folder_of_all_workers(tmp_path_factory)
    with (folder / "planet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker makes it, the others wait
        return make_planet(folder / "planet")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe with fewer years and months."""
    from clay_assets_tests.chain import YEARS, recipe_with

    return recipe_with(
        tmp_path_factory.mktemp("recipe"),
        ("years = [2021, 2023]", f"years = {list(YEARS)}"),
        ("years = [2018, 2023]", "years = [2020, 2023]"),
    )


@pytest.fixture(scope="session")
def built(planet: Planet, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The whole chain, run once. Tests must not change it."""
    from clay_assets.definitions import build_definitions
    from clay_assets_tests.chain import Chain, instance_in, overrides

    folder = tmp_path_factory.mktemp("built")
    storage = str(folder / "clay")
    with instance_in(folder) as instance:
        chain = Chain(build_definitions(**overrides(planet, recipe, storage)), instance, storage)
        chain.run_all()
        yield chain
