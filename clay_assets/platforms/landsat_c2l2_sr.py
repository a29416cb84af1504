"""Landsat 8 and 9 Collection 2 Level-2: surface reflectance, the six 30 m optical bands."""

from clay_assets.platforms.landsat import landsat

PLATFORM = landsat("landsat-c2l2-sr", "Landsat 8/9 C2 L2 SR")
