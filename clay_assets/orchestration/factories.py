"""What makes the IO managers of `io_managers` when a run needs them.

Definitions name these, so they load without `UPathIOManager`, whose libraries take as long as all of ours.
"""

from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.orchestration.resources import ClayResource

if TYPE_CHECKING:
    from clay_assets.orchestration.io_managers import GeoTables, StacItems


class StoreIOManagerFactory(dg.ConfigurableIOManagerFactory):  # type: ignore[type-arg]
    """What the factories of IO managers have in common."""

    clay: dg.ResourceDependency[ClayResource]


class GeoTablesIOManager(StoreIOManagerFactory):
    """Makes `GeoTables`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> "GeoTables":
        from clay_assets.orchestration.io_managers import GeoTables

        return GeoTables(self.clay)


class StacItemsIOManager(StoreIOManagerFactory):
    """Makes `StacItems`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> "StacItems":
        from clay_assets.orchestration.io_managers import StacItems

        return StacItems(self.clay)
