"""A deployment on one machine: PostgreSQL, S3, code server, webserver and daemon, by `deploy/dagster.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import Planet
from clay_assets.runs.whole_chain import Step
from clay_assets_tests.chain import Chain, overrides, recipe_with
from clay_assets_tests.conftest import Bucket, not_run
from clay_assets_tests.servers.daemon import ServerUnavailableError
from clay_assets_tests.servers.dagster import DagsterServers
from clay_assets_tests.servers.postgres import Postgres

DEPLOY = Path(__file__).parents[2] / "deploy"
YEARS = (2020, 2021)
PLATFORMS = ("landsat-c2l1", "sentinel-2-l2a")
PASSWORD = "n0t-to-be-seen-anywhere"


@dataclass(frozen=True)
class Deployment:
    """What runs.

    Attributes:
        chain: definitions and instance in this process, the same storage and database.
        servers: code server, webserver and daemon.
        bucket: of the storage, and of the compute logs.
        database: address for libpq clients.
    """

    chain: Chain
    servers: DagsterServers
    bucket: Bucket
    database: str


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres()
    except ServerUnavailableError as error:
        not_run("a deployment on PostgreSQL", error)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def deployment(
    postgres: Postgres, module_s3_bucket: Bucket, planet: Planet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The deployment, with all that comes before the picks of two platforms."""
    folder = tmp_path_factory.mktemp("deployment")
    home = folder / "dagster_home"
    home.mkdir()
    text = (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")
    limit = "value: {applyLimitPerUniqueValue: true}\n        limit: 2"
    assert limit in text
    # One run of a platform at once, so that the limit can be seen to hold with few runs.
    (home / "dagster.yaml").write_text(text.replace(limit, limit.replace("2", "1")), encoding="utf-8")
    recipe = recipe_with(
        folder,
        ("years = [2021, 2023]", f"years = {list(YEARS)}"),
        ("quarters = [1, 2, 3, 4]", "quarters = [1, 3]"),  # some scenes to lose, and no more of them than that takes
    )
    storage = f"{module_s3_bucket.url}/clay"
    environment = {
        **planet.environment(),
        "CLAY_RECIPE": str(recipe),
        "CLAY_STORAGE": storage,
        "CLAY_WORKERS": "1",
        "DAGSTER_POSTGRES_HOST": "127.0.0.1",
        "DAGSTER_POSTGRES_PORT": str(postgres.port),
        "DAGSTER_POSTGRES_DB": "dagster",
        "DAGSTER_POSTGRES_USER": "postgres",
        "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
        "DAGSTER_LOGS_BUCKET": module_s3_bucket.name,
        "DAGSTER_LOGS_PREFIX": "logs",
    }
    database = postgres.create_database("dagster")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            chain = Chain(build_definitions(**overrides(planet, recipe, storage)), instance, storage)
            instance.event_log_storage.set_concurrency_slots("stac_api", 1)
            for step in (
                Step("landcover"),
                Step("sampling", asset="mgrs_sample"),
                *(Step("requests", platform) for platform in PLATFORMS),
            ):
                assert chain.run(step.job, step.partition, step.asset).success, step
            servers = DagsterServers(home, environment)
            yield Deployment(chain, servers, module_s3_bucket, database)
            servers.stop()
