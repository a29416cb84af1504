"""STAC items of the optical satellites, with the property and asset names of the real catalogues.

Sentinel-2 items follow Earth Search v1, Landsat items the USGS stac-server. Only the values are synthetic, and the
hrefs are local files. The items keep the catalogues' quirks: `grid:code` with and without a leading zero, a few items
with `proj:code` instead of `proj:epsg`, and one Sentinel-2 item without its `scl` asset.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np

from clay_assets.demo.calendar import Scene
from clay_assets.demo.radiometry import Numbers
from clay_assets.demo.sites import LANDSAT_L1, LANDSAT_L2, SENTINEL_2, Site
from clay_assets.demo.stac import PROJECTION, PROJECTION_WITH_CODE, Json, item, stamp
from clay_assets.demo.weather import Drawing

# Asset key → (band file, GSD in m, common name, wavelength in µm). Sentinel-2 MSI; Landsat 8-9 OLI.
SENTINEL_2_BANDS = {
    "blue": ("B02", 10, "blue", 0.49),
    "green": ("B03", 10, "green", 0.56),
    "red": ("B04", 10, "red", 0.665),
    "rededge1": ("B05", 20, "rededge", 0.704),
    "rededge2": ("B06", 20, "rededge", 0.74),
    "rededge3": ("B07", 20, "rededge", 0.783),
    "nir": ("B08", 10, "nir", 0.842),
    "nir08": ("B8A", 20, "nir08", 0.865),
    "swir16": ("B11", 20, "swir16", 1.61),
    "swir22": ("B12", 20, "swir22", 2.19),
}
LANDSAT_BANDS = {
    "blue": ("B2", 30, "blue", 0.48),
    "green": ("B3", 30, "green", 0.56),
    "red": ("B4", 30, "red", 0.65),
    "nir08": ("B5", 30, "nir08", 0.86),
    "swir16": ("B6", 30, "swir16", 1.6),
    "swir22": ("B7", 30, "swir22", 2.2),
}
PAN = ("B8", 15, "pan", 0.59)
VISIBLE = ("blue", "green", "red")

_SENTINEL_2_EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    "https://stac-extensions.github.io/mgrs/v1.0.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.0.0/schema.json",
]
_LANDSAT_EXTENSIONS = [
    "https://landsat.usgs.gov/stac/landsat-extension/v1.1.1/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
    "https://stac-extensions.github.io/alternate-assets/v1.1.0/schema.json",
    "https://stac-extensions.github.io/storage/v1.0.0/schema.json",
]
_CLOUD_PERCENTAGES = {
    9: "s2:high_proba_clouds_percentage",
    8: "s2:medium_proba_clouds_percentage",
    10: "s2:thin_cirrus_percentage",
    3: "s2:cloud_shadow_percentage",
    1: "s2:saturated_defective_pixel_percentage",
}
_DECLINATION = 23.44  # degrees, solar declination at the solstices


def sentinel_2_id(scene: Scene) -> str:
    """Item id as in Earth Search v1: the tile without a leading zero."""
    return f"S2{scene.spacecraft}_{scene.site.name.lstrip('0')}_{scene.moment:%Y%m%d}_{scene.sequence}_L2A"


def landsat_product(scene: Scene, collection: str) -> str:
    """Landsat Collection 2 product id."""
    sensor = "LE07" if scene.spacecraft == "7" else f"LC0{scene.spacecraft}"
    done = scene.moment + timedelta(days=8)
    level = _correction(scene, collection)
    return f"{sensor}_{level}_{scene.site.name}_{scene.moment:%Y%m%d}_{done:%Y%m%d}_02_{_tier(scene)}"


def landsat_id(scene: Scene, collection: str) -> str:
    """Item id as in the USGS stac-server: level 2 has a suffix."""
    return landsat_product(scene, collection) + ("_SR" if collection == LANDSAT_L2 else "")


@lru_cache(maxsize=1024)
def band_file(folder: Path, collection: str, place: str, band: str) -> Path:
    """The file of a band; `place`: name of the site whose scenes share it, or id of the item that owns it."""
    return folder / "imagery" / collection / place / f"{band}.tif"


def quality_file(folder: Path, collection: str, item_id: str) -> Path:
    """The quality raster of one item."""
    return folder / "imagery" / collection / item_id / ("SCL.tif" if collection == SENTINEL_2 else "QA_PIXEL.tif")


def place_name(site: Site, offset: int = 0) -> str:
    """The folder of the bands shared by the scenes of a place; bands with an offset have their own folder."""
    return f"{site.name}-offset" if offset else site.name


def sentinel_2(scene: Scene, drawing: Drawing, scaled: Numbers, folder: Path, *, code: bool, without_scl: bool) -> Json:
    """One item of `sentinel-2-l2a`.

    Args:
        scene: the acquisition.
        drawing: the scene's quality raster.
        scaled: the scaling of its digital numbers.
        folder: the planet's folder.
        code: give the CRS as `proj:code` instead of `proj:epsg`.
        without_scl: omit the `scl` asset.
    """
    site, name = scene.site, sentinel_2_id(scene)
    assets = {
        key: {
            "href": str(band_file(folder, SENTINEL_2, _place(scene, name, key, scaled.offset), band)),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": f"{key} - {gsd}m",
            "gsd": gsd,
            "eo:bands": [{"name": key, "common_name": common, "center_wavelength": wavelength}],
            **_asset_grid(site, gsd),
            "raster:bands": [
                {
                    "data_type": "uint16",
                    "nodata": 0,
                    "spatial_resolution": gsd,
                    "scale": 0.0001,
                    "offset": scaled.noted,
                }
            ],
            "roles": ["data", "reflectance"],
        }
        for key, (band, gsd, common, wavelength) in SENTINEL_2_BANDS.items()
    }
    if not without_scl:
        assets["scl"] = {
            "href": str(quality_file(folder, SENTINEL_2, name)),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": "Scene classification map (SCL)",
            **_asset_grid(site, 20),
            "raster:bands": [{"data_type": "uint8", "nodata": 0, "spatial_resolution": 20}],
            "roles": ["data", "reflectance"],
        }
    padded = scene.lucky // 2 % 2 == 0
    properties = {
        "datetime": stamp(scene.moment),
        "created": stamp(scene.moment + timedelta(days=1 + scene.sequence)),
        "platform": f"sentinel-2{scene.spacecraft.lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(drawing.cloud_cover, 6),
        "grid:code": f"MGRS-{site.name if padded else site.name.lstrip('0')}",
        "mgrs:utm_zone": int(site.name[:2]),
        "mgrs:latitude_band": site.name[2],
        "mgrs:grid_square": site.name[3:],
        **_crs(site, code),
        "s2:nodata_pixel_percentage": round(drawing.nodata_share, 6),
        **{field: round(drawing.shares[value], 6) for value, field in _CLOUD_PERCENTAGES.items()},
        "s2:processing_baseline": scaled.baseline,
        "s2:product_type": "S2MSI2A",
        "s2:sequence": str(scene.sequence),
        **({} if scaled.applied is None else {"earthsearch:boa_offset_applied": scaled.applied}),
        "view:sun_elevation": round(_sun_elevation(scene), 6),
        "view:sun_azimuth": 160.0 if site.middle[1] > 0 else 40.0,
    }
    return _item(name, SENTINEL_2, scene, properties, assets, _SENTINEL_2_EXTENSIONS, code)


def landsat(scene: Scene, drawing: Drawing, folder: Path, collection: str, *, code: bool) -> Json:
    """One item of a Landsat collection; see `sentinel_2` for the arguments."""
    site, name = scene.site, landsat_id(scene, collection)
    level = "Level-1" if collection == LANDSAT_L1 else "Level-2"
    bands = dict(LANDSAT_BANDS)
    if collection == LANDSAT_L1:
        bands["pan"] = PAN
    prefix = "" if collection == LANDSAT_L1 else "SR_"
    assets = {}
    for key, (band, gsd, common, wavelength) in bands.items():
        assets[key] = {
            "title": f"{key} Band ({band})",
            "description": f"Collection 2 {level} {key} Band ({band})",
            **_landsat_file(band_file(folder, collection, _place(scene, name, key), prefix + band)),
            "eo:bands": [{"name": band, "common_name": common, "gsd": gsd, "center_wavelength": wavelength}],
            "roles": ["data"],
        }
    if "pan" in assets:
        # The 15 m grid starts half a 15 m pixel inside the 30 m grid and ends half a pixel before it.
        assets["pan"]["proj:shape"] = [2 * site.height - 1, 2 * site.width - 1]
        assets["pan"]["proj:transform"] = [15.0, 0.0, site.left + 7.5, 0.0, -15.0, site.top - 7.5]
    assets["qa_pixel"] = {
        "title": "Pixel Quality Assessment Band",
        "description": f"Collection 2 {level} Pixel Quality Assessment Band",
        **_landsat_file(quality_file(folder, collection, name)),
        "roles": ["cloud", "cloud-shadow", "snow-ice", "water-mask"],
    }
    cloud_cover = drawing.cloud_cover if scene.stated is None else scene.stated
    sensor = "LE7" if scene.spacecraft == "7" else f"LC{scene.spacecraft}"
    properties = {
        "datetime": stamp(scene.moment),
        "created": stamp(scene.moment + timedelta(days=9)),
        "platform": f"LANDSAT_{scene.spacecraft}",
        "instruments": ["ETM"] if scene.spacecraft == "7" else ["OLI", "TIRS"],
        "eo:cloud_cover": round(cloud_cover, 2),
        "view:sun_azimuth": 158.0 if site.middle[1] > 0 else 39.0,
        "view:sun_elevation": round(_sun_elevation(scene), 8),
        "view:off_nadir": 0,
        "landsat:cloud_cover_land": round(cloud_cover, 2),
        "landsat:wrs_type": "2",
        "landsat:wrs_path": site.name[:3],
        "landsat:wrs_row": site.name[3:],
        "landsat:scene_id": f"{sensor}{site.name}{scene.moment:%Y%j}LGN00",
        "landsat:collection_category": _tier(scene),
        "landsat:collection_number": "02",
        "landsat:correction": _correction(scene, collection),
        **_crs(site, code),
        "proj:shape": [site.height, site.width],
        "proj:transform": [30.0, 0.0, float(site.left), 0.0, -30.0, float(site.top)],
    }
    return _item(name, collection, scene, properties, assets, _LANDSAT_EXTENSIONS, code)


def _place(scene: Scene, name: str, key: str, offset: int = 0) -> str:
    """The path of a band: next to the quality raster of its item, or with the bands that all scenes share."""
    return name if scene.shows_clouds and key in VISIBLE else place_name(scene.site, offset)


def _item(
    name: str,
    collection: str,
    scene: Scene,
    properties: Json,
    assets: Json,
    extensions: list[str],
    code: bool,
) -> Json:
    extensions = [*extensions, PROJECTION_WITH_CODE if code else PROJECTION]
    return item(name, collection, scene.site.footprint(scene.wedge), properties, assets, extensions)


def _asset_grid(site: Site, gsd: int) -> Json:
    factor = site.pixel // gsd
    return {
        "proj:shape": [site.height * factor, site.width * factor],
        "proj:transform": [gsd, 0, site.left, 0, -gsd, site.top],
    }


def _landsat_file(path: Path) -> Json:
    return {
        "href": str(path),
        "type": "image/vnd.stac.geotiff; cloud-optimized=true",
        "alternate": {
            "s3": {"storage:platform": "AWS", "storage:requester_pays": True, "href": str(path)},
        },
    }


def _crs(site: Site, code: bool) -> Json:
    return {"proj:code": f"EPSG:{site.epsg}"} if code else {"proj:epsg": site.epsg}


def _tier(scene: Scene) -> str:
    return "T2" if scene.quarter_kind == "overcast" or scene.is_night else "T1"


def _correction(scene: Scene, collection: str) -> str:
    if collection == LANDSAT_L2:
        return "L2SP"
    return "L1GT" if _tier(scene) == "T2" else "L1TP"


def _sun_elevation(scene: Scene) -> float:
    """Degrees above the horizon, from latitude, day of the year and mean solar time of the overpass."""
    lon, lat = scene.site.middle
    day = scene.moment.timetuple().tm_yday
    declination = np.radians(-_DECLINATION * np.cos(2 * np.pi * (day + 10) / 365.25))
    hour = (scene.moment.hour + scene.moment.minute / 60 + lon / 15) % 24
    angle, lat = np.radians(15 * (hour - 12)), np.radians(lat)
    return float(
        np.degrees(np.arcsin(np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.cos(angle)))
    )
