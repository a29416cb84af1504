"""A STAC API like the Planetary Computer's: stac-fastapi-pgstac on PostgreSQL with PostGIS.

Loading follows https://stac-utils.github.io/pgstac/pypgstac/. Tests decide what is loaded: items are stored unchanged,
including those of STAC 0.7.0 whose `datetime` is a date without a time ("2020-10-31"), which the database interprets as
midnight UTC and the API returns as they were.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clay_assets_tests.servers.daemon import (
    Daemon,
    ServerUnavailableError,
    WorkFolder,
    free_port,
    outside_environment,
)
from clay_assets_tests.servers.postgres import Postgres, binaries

# Without a type, pgstac compares and sorts a property as text ("100" < "20"). Names are those of Earth
# Search v1, the USGS stac-server and the Planetary Computer.
NUMBERS = """eo:cloud_cover gsd landsat:cloud_cover_land s2:nodata_pixel_percentage sat:relative_orbit
    view:off_nadir view:sun_azimuth view:sun_elevation"""
INTEGERS = "mgrs:utm_zone proj:epsg"
STRINGS = """grid:code landsat:collection_category landsat:wrs_path landsat:wrs_row mgrs:grid_square
    mgrs:latitude_band modis:horizontal-tile modis:vertical-tile naip:state naip:year platform proj:code
    sar:instrument_mode sat:orbit_state"""
QUERYABLES: dict[str, dict[str, str]] = {
    **{name: {"type": "number"} for name in NUMBERS.split()},
    **{name: {"type": "integer"} for name in INTEGERS.split()},
    **{name: {"type": "string"} for name in STRINGS.split()},
    **{name: {"type": "string", "format": "date-time"} for name in ("created", "updated")},
}


def missing() -> str | None:
    """Return the reason why the server cannot run here, or None."""
    for module in ("psycopg", "pypgstac", "stac_fastapi.pgstac", "uvicorn"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"the Python package {module} is not installed (make setup installs it)"
    try:
        binaries()
    except ServerUnavailableError as error:
        return str(error)
    return None


def minimal_collection(collection_id: str) -> dict[str, Any]:
    """Return a minimal STAC 1.0 collection."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": collection_id,
        "description": collection_id,
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }


class StacApi:
    """A running STAC API, empty until `load` is called.

    Attributes:
        url: root of the API, `http://127.0.0.1:PORT`.
    """

    def __init__(self) -> None:
        """Start database and API."""
        if reason := missing():
            raise ServerUnavailableError(reason)
        self._api: Daemon | None = None
        self._folder = WorkFolder("clay-stac-api-")
        self._postgres: Postgres | None = None
        try:
            self._postgres = Postgres()
            self._dsn = self._postgres.create_database("pgstac")
            self._migrate()
            self._start_api(self._postgres.port)
        except BaseException:
            self.stop()
            raise

    def _migrate(self) -> None:
        from pypgstac.db import PgstacDB
        from pypgstac.migrate import Migrate

        with PgstacDB(dsn=self._dsn) as database:
            Migrate(database).run_migration()
            database.connect().execute(
                "SELECT upsert_queryables(%s::jsonb, NULL, NULL, false)",
                [json.dumps({"type": "object", "properties": QUERYABLES})],
            )

    def _start_api(self, database_port: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(database_port),
            "PGUSER": "postgres",
            "PGPASSWORD": "trust",
            "PGDATABASE": "pgstac",
        }
        uvicorn = [sys.executable, "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory"]
        self._api = Daemon(
            "STAC API",
            [*uvicorn, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
            self._folder.path / "stac_api.log",
            env={**outside_environment(), **settings},
        )
        self._api.wait_until(self._answers, 60)

    def _answers(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/collections", timeout=5) as answer:
            return bool(answer.status == 200)

    def load(self, collections: list[dict[str, Any]], items: Iterable[dict[str, Any]]) -> None:
        """Add or replace collections and items; can be called repeatedly.

        Args:
            collections: STAC collections. Missing collections of items are generated.
            items: STAC items. If collection and id repeat, the last item is kept.
        """
        from pypgstac.db import PgstacDB
        from pypgstac.load import Loader, Methods

        unique = {(item["collection"], item["id"]): item for item in items}
        with PgstacDB(dsn=self._dsn) as database, tempfile.TemporaryDirectory() as folder:
            stored = {row[0] for row in database.connect().execute("SELECT id FROM pgstac.collections")}
            known = stored | {collection["id"] for collection in collections}
            made_up = [minimal_collection(name) for name in sorted({name for name, _ in unique} - known)]
            loader = Loader(db=database)
            for name, rows, load in (
                ("collections", [*collections, *made_up], loader.load_collections),
                ("items", list(unique.values()), loader.load_items),
            ):
                if rows:
                    path = Path(folder) / f"{name}.ndjson"
                    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
                    load(str(path), Methods.upsert)

    def clear(self) -> None:
        """Remove all collections with their items."""
        import psycopg

        with psycopg.connect(self._dsn, options="-c search_path=pgstac,public") as connection:
            connection.execute("DELETE FROM collections")

    def stop(self) -> None:
        """Stop API and database and remove their files."""
        if self._api is not None:
            self._api.stop()
        if self._postgres is not None:
            self._postgres.stop()
        self._folder.remove()
