"""Open a STAC API or a STAC-GeoParquet snapshot, depending on the address."""

from __future__ import annotations

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.catalogues.stac_api import ApiCatalogue


def open_catalogue(location: str, requests_in_flight: int) -> Catalogue:
    """The catalogue at a location: an `http(s)://` address is an API, anything else a snapshot."""
    if location.startswith(("http://", "https://")):
        return ApiCatalogue(location, requests_in_flight=requests_in_flight)
    return SnapshotCatalogue(location)
