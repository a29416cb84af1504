"""`ClayResource`: the resource that assets use. Nothing is read before an asset runs, so definitions load without
environment, network or storage.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from clay_assets.errors import InputError
from clay_assets.settings import Settings, read_settings

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import geopandas as gpd
    import pandas as pd

    from clay_assets.catalogues.base import Catalogue
    from clay_assets.platforms import AnyPlatform
    from clay_assets.recipes import Recipe
    from clay_assets.stac import Item
    from clay_assets.storage.stores import Store
    from clay_assets.transport.s3 import S3Connection


class ClayResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Settings, recipe, storage and catalogues of one deployment, opened on first use."""

    overrides: dict[str, Any] = Field({}, description="setting → value, overrides the environment")
    # A `dagster_aws.s3.S3Resource`. Any, since importing dagster_aws takes seconds and most storages are folders.
    s3: dg.ResourceDependency[Any] = None  # type: ignore[assignment]  # optional
    _store: Any = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """Read the settings from the environment.

        Raises:
            InputError: names each invalid variable.
        """
        return read_settings(**self.overrides)

    def recipe(self) -> "Recipe":
        """The recipe that the settings name."""
        from clay_assets.recipes import load_recipe

        return load_recipe(self.settings.recipe)

    def store(self) -> "Store":
        """The storage that everything is written to; opened once, as creating an S3 client is slow.

        Raises:
            InputError: `CLAY_STORAGE` is neither a folder nor `s3://bucket/prefix`.
        """
        from clay_assets.storage.stores import open_store
        from clay_assets.transport.locations import is_s3

        if self._store is None:
            location = self.settings.storage
            try:
                self._store = open_store(location, self._s3_connection() if is_s3(location) else None)
            except InputError as error:
                raise InputError(f"CLAY_STORAGE: {error}") from error
        store: Store = self._store
        return store

    def table(self, asset: str, *partition: str) -> "gpd.GeoDataFrame":
        """The table of an asset, or of one of its partitions.

        Raises:
            InputError: not materialised yet.
        """
        from clay_assets.storage import layout
        from clay_assets.storage.geoparquet import decode

        store, key = self.store(), layout.table(asset, *partition)
        try:
            content = store.read(key)
        except FileNotFoundError as error:
            raise InputError(f"{store.uri(key)}: file not found. Materialise {asset} first.") from error
        return decode(content, store.uri(key))

    def write_table(self, key: str, frame: "pd.DataFrame") -> None:
        """Write a table in addition to an asset's own, such as a ledger."""
        from clay_assets.storage.geoparquet import encode

        self.store().write(key, encode(frame, self.recipe().stamp()))

    def write_items(self, key: str, items: "list[Item]") -> None:
        """Write STAC items in addition to an asset's own table."""
        from clay_assets.storage.stac_geoparquet import encode_items

        self.store().write(key, encode_items(items, self.recipe().stamp()))

    def catalogue(self, platform: "AnyPlatform") -> "Catalogue":
        """The catalogue of a platform according to the settings."""
        from clay_assets.catalogues.opening import open_catalogue

        return open_catalogue(getattr(self.settings, platform.scenes.catalogue), self.settings.requests_in_flight)

    def scenes_of(self, platform: "AnyPlatform") -> "Catalogue":
        """The source of a platform's scenes: its catalogue, or the results of an earlier search of it.

        Raises:
            InputError: the search results are missing.
        """
        from clay_assets.catalogues.snapshot import SnapshotCatalogue
        from clay_assets.storage import layout

        if platform.rules.resolve:
            asset, keys = "scene_requests", layout.search_results_keys(platform.key)
        elif platform.scenes.sample_has_items:
            asset, keys = platform.scenes.sample, [layout.table(platform.scenes.sample)]
        else:
            return self.catalogue(platform)
        store = self.store()
        found = next((key for key in keys if store.exists(key)), None)
        if found is None:
            raise InputError(f"{store.uri(keys[0])}: file not found. Re-materialise {asset} of {platform.key}.")
        return SnapshotCatalogue(store.uri(found), store.access)

    def requested_years(self, platform: str) -> list[int]:
        """The years for which a platform has requests; none if its requests have not been materialised."""
        import io

        import pyarrow.parquet as pq

        from clay_assets.storage import layout

        try:
            content = self.store().read(layout.table("scene_requests", platform))
        except FileNotFoundError:
            return []
        return sorted(pq.read_table(io.BytesIO(content), columns=["year"])["year"].unique().to_pylist())

    @contextmanager
    def executor(self, short_jobs: int = 0) -> Iterator[tuple["Executor", int]]:
        """The worker pool, and the number of jobs to keep in flight; see `open_executor`."""
        from clay_assets.executors import open_executor
        from clay_assets.storage.stores import StoreMark

        settings, mark = self.settings, StoreMark(self.store())
        pool = open_executor(settings.workers, settings.dask_scheduler, short_jobs=short_jobs, mark=mark)
        with pool as (executor, in_flight):
            yield executor, in_flight

    def _s3_connection(self) -> "S3Connection":
        """The connection of the `S3Resource`; clients are created from its fields, as its own have no timeouts."""
        from dagster_aws.s3 import S3Resource  # only imported if the storage is on S3

        from clay_assets.transport.s3 import S3Connection

        resource = S3Resource() if self.s3 is None else self.s3
        if not isinstance(resource, S3Resource):
            raise InputError(
                f"resource s3: a {type(resource).__name__}, not an S3Resource. Configure it where the definitions are "
                "built, such as ClayResource(s3=S3Resource(endpoint_url=…)), not at launch."
            )
        return S3Connection(
            endpoint=resource.endpoint_url,
            region=resource.region_name,
            profile=resource.profile_name,
            access_key=resource.aws_access_key_id,
            secret_key=resource.aws_secret_access_key,
            session_token=resource.aws_session_token,
            unsigned=resource.use_unsigned_session,
            verify=resource.verify,
        )
