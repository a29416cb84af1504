"""Factories that create the IO managers of `io_managers` when a run needs them.

Definitions refer to these, so they load without `UPathIOManager`, whose imports would double the loading time.
"""

from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.orchestration.resources import ClayResource

if TYPE_CHECKING:
    from clay_assets.orchestration.io_managers import GeoTables, StacItems


class StoreIOManagerFactory(dg.ConfigurableIOManagerFactory):  # type: ignore[type-arg]
    """Base of the IO manager factories."""

    clay: dg.ResourceDependency[ClayResource]


class GeoTablesIOManager(StoreIOManagerFactory):
    """Creates `GeoTables`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> "GeoTables":
        from clay_assets.orchestration.io_managers import GeoTables

        return GeoTables(self.clay)


class StacItemsIOManager(StoreIOManagerFactory):
    """Creates `StacItems`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> "StacItems":
        from clay_assets.orchestration.io_managers import StacItems

        return StacItems(self.clay)
