"""What assets work with: settings, recipe, storage, catalogues and the pool of workers.

Nothing is read before an asset runs: definitions load without environment, network or storage.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from clay_assets.settings import Settings, read_settings

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import geopandas as gpd
    import pandas as pd

    from clay_assets.catalogues.search import Catalogue
    from clay_assets.platforms import Platform
    from clay_assets.platforms.base import Item
    from clay_assets.recipes import Recipe
    from clay_assets.storage.stores import Store


class ClayResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One deployment: what its settings name, opened when asked for."""

    overrides: dict[str, Any] = Field({}, description="setting → value, over the environment's")
    _store: Any = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """The settings, read from the environment now.

        Raises:
            InputError: names each variable that is wrong.
        """
        return read_settings(**self.overrides)

    def recipe(self) -> "Recipe":
        """The recipe that the settings name."""
        from clay_assets.recipes import load_recipe

        return load_recipe(self.settings.recipe)

    def store(self) -> "Store":
        """Where everything is written; opened once, as making an S3 client takes long."""
        from clay_assets.storage.stores import open_store

        if self._store is None:
            self._store = open_store(self.settings.storage)
        store: Store = self._store
        return store

    def table(self, asset: str, *partition: str) -> "gpd.GeoDataFrame":
        """The table of an asset, or of one of its partitions.

        Raises:
            InputError: it was not materialised yet.
        """
        from clay_assets.errors import InputError
        from clay_assets.storage import layout
        from clay_assets.storage.geoparquet import decode

        store, key = self.store(), layout.table(asset, *partition)
        try:
            content = store.read(key)
        except FileNotFoundError as error:
            raise InputError(f"{store.uri(key)} does not exist: materialise {asset} first.") from error
        return decode(content, store.uri(key))

    def write_table(self, key: str, frame: "pd.DataFrame") -> None:
        """Write a table beside an asset's own, such as a ledger."""
        from clay_assets.storage.geoparquet import encode

        self.store().write(key, encode(frame, self.recipe().stamp()))

    def write_items(self, key: str, items: "list[Item]") -> None:
        """Write STAC items beside an asset's own table."""
        from clay_assets.storage.stac_geoparquet import encode_items

        self.store().write(key, encode_items(items, self.recipe().stamp()))

    def catalogue(self, platform: "Platform") -> "Catalogue":
        """The catalogue of a platform, by the settings."""
        from clay_assets.catalogues.opening import open_catalogue

        return open_catalogue(getattr(self.settings, platform.catalogue), self.settings.requests_in_flight)

    def scenes_of(self, platform: "Platform") -> "Catalogue":
        """Where a platform's scenes are picked from: its catalogue, or what was found there before.

        Raises:
            InputError: what was found is no longer there.
        """
        from clay_assets.catalogues.snapshot import SnapshotCatalogue
        from clay_assets.errors import InputError
        from clay_assets.storage import layout

        if platform.resolve:
            asset, key = "scene_requests", layout.found(platform.key)
        elif platform.sample_has_items:
            asset, key = platform.sample, layout.table(platform.sample)
        else:
            return self.catalogue(platform)
        store = self.store()
        if not store.exists(key):
            raise InputError(f"{store.uri(key)} does not exist: materialise {asset} of {platform.key} again.")
        return SnapshotCatalogue(store.uri(key))

    def years_asked(self, platform: str) -> list[int]:
        """The years that a platform has requests in; none if its requests were not made."""
        import io

        import pyarrow.parquet as pq

        from clay_assets.storage import layout

        try:
            content = self.store().read(layout.table("scene_requests", platform))
        except FileNotFoundError:
            return []
        return sorted(pq.read_table(io.BytesIO(content), columns=["year"])["year"].unique().to_pylist())

    @contextmanager
    def executor(self) -> Iterator[tuple["Executor", int]]:
        """The pool of workers, and how many jobs to have in flight."""
        from clay_assets.executors import open_executor

        settings = self.settings
        with open_executor(settings.workers, settings.dask_scheduler) as (executor, in_flight):
            yield executor, in_flight
