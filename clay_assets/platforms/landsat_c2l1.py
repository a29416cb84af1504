"""Landsat 8 and 9 Collection 2 Level-1: top-of-atmosphere radiance, the six 30 m optical bands."""

from clay_assets.platforms.landsat import landsat

PLATFORM = landsat("landsat-c2l1", "Landsat 8/9 C2 L1")
