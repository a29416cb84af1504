"""Aerial surveys of New Zealand as a static STAC catalogue, with the layout of LINZ's `nz-imagery`.

`catalog.json` links to `{region}/{survey}/{rgb or rgbnir}/2193/collection.json`, which link to an item per map sheet,
and each item to a tiled uint8 GeoTIFF next to it, in NZTM2000. Sheets are drawn on a 0.3 m lattice, with spots of 0.6 m
and an alpha of 0 along the western edge of some, so the alpha stays exact when resampled to 0.3 m.

Layout: https://github.com/linz/imagery, docs/naming.md. Checksums: multihash, SHA-256, as in the STAC file extension
2.0. Sheet names: `{Topo50 sheet}_{scale}_{row and column}`.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp

from clay_assets.demo.aerial import aerial, colours
from clay_assets.demo.grid import to_lonlat
from clay_assets.demo.imagery import BLOCK, DETAIL, crs
from clay_assets.demo.stac import GEOTIFF, Json, item

NZTM = 2193
LATTICE = 0.3  # m
# Region → surface types and stream width in m, as passed to `aerial`.
GROUNDS: dict[str, tuple[tuple[str, ...], float]] = {
    "bay-of-plenty": (("town", "town", "meadow"), 0),
    "auckland": (("woods", "meadow", "meadow"), 8),
    "canterbury": (("farmland",), 0),
    "southland": (("meadow", "farmland"), 12),
    "gisborne": (("farmland", "meadow"), 0),
}
CEILING = 200  # largest number of nodata cells at the western edge of a sheet
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # alphabet of ULIDs
FILE = "https://stac-extensions.github.io/file/v2.0.0/schema.json"


@dataclass(frozen=True)
class Survey:
    """One collection.

    Attributes:
        region, slug: `region/slug` is the survey's name.
        gsd: ground sample distance, m.
        scale: scale of its sheets, as in their names.
        origin: north-west corner of the first sheet, NZTM easting and northing, m.
        width, height: size of a sheet in cells of 0.3 m.
        sheets: number of sheets, six per row.
        flown: first and last day of flights.
        kind: `rgb` or `rgbnir`.
        alpha: whether a fourth or fifth band masks nodata; otherwise black is nodata.
        wedges: numbers of sheets with some nodata.
        late: number of a sheet flown in the following year, or -1.
        missing: number of a sheet whose item is linked but missing, or -1.
        category: LINZ's geospatial category.
        in_recipe: whether `Planet.linz_surveys` lists it.
    """

    region: str
    slug: str
    gsd: float
    scale: int
    origin: tuple[int, int]
    width: int
    height: int
    sheets: int
    flown: tuple[date, date]
    kind: str = "rgb"
    alpha: bool = True
    wedges: tuple[int, ...] = ()
    late: int = -1
    missing: int = -1
    category: str = "urban-aerial-photos"
    in_recipe: bool = True

    @property
    def name(self) -> str:
        """`region/slug`."""
        return f"{self.region}/{self.slug}"

    @property
    def path(self) -> str:
        """Folder relative to the catalogue."""
        return f"{self.name}/{self.kind}/{NZTM}"

    @property
    def id(self) -> str:
        """A synthetic id in the form of a ULID."""
        number = int.from_bytes(hashlib.blake2b(self.path.encode(), digest_size=16).digest(), "big")
        return "01" + "".join(CROCKFORD[number >> 5 * place & 31] for place in range(24))

    def sheet(self, number: int) -> str:
        """Name of a sheet."""
        row, column = divmod(number, 6)
        return f"{'BD' if self.region == 'bay-of-plenty' else 'BA'}37_{self.scale}_{row + 1:02d}{column + 1:02d}"

    def corner(self, number: int) -> tuple[float, float]:
        """North-west corner of a sheet, m; a multiple of 0.3 m from the origin of the projection."""
        row, column = divmod(number, 6)
        east, north = self.origin[0] * 10 + 3 * column * self.width, self.origin[1] * 10 - 3 * row * self.height
        return east / 10, north / 10


TAURANGA, AUCKLAND = (1_877_400, 5_825_400), (1_756_200, 5_919_600)
CANTERBURY = Survey(
    "canterbury", "canterbury_2023_0.3m", 0.3, 5000, (1_519_800, 5_159_700), 540, 520, 6,
    (date(2023, 4, 4), date(2023, 4, 24)), alpha=False, wedges=(2,), category="rural-aerial-photos",
)  # fmt: skip
SURVEYS = (
    Survey(
        "bay-of-plenty", "tauranga_2022_0.1m", 0.1, 1000, TAURANGA, 540, 280, 24,
        (date(2022, 1, 18), date(2022, 3, 2)), wedges=(3, 8, 17),
    ),
    Survey(
        "bay-of-plenty", "tauranga-winter_2022_0.1m", 0.1, 1000, TAURANGA, 540, 280, 12,
        (date(2022, 7, 3), date(2022, 7, 20)), wedges=(4,),
    ),
    Survey(
        "auckland", "auckland_2022_0.075m", 0.075, 1000, AUCKLAND, 520, 300, 10,
        (date(2022, 11, 5), date(2022, 12, 20)), wedges=(1, 6), late=7, category="rural-aerial-photos",
    ),
    CANTERBURY,
    Survey(
        "southland", "southland_2016_0.4m", 0.4, 10000, (1_242_600, 4_848_300), 540, 524, 3,
        (date(2016, 2, 1), date(2016, 3, 9)), alpha=False, category="rural-aerial-photos",
    ),
    Survey(
        "auckland", "auckland_2017_0.075m", 0.075, 1000, AUCKLAND, 520, 300, 2,
        (date(2017, 1, 9), date(2017, 2, 1)), in_recipe=False,
    ),
    Survey(
        "canterbury", "canterbury_2023_0.3m", 0.3, 5000, CANTERBURY.origin, 540, 520, 2, CANTERBURY.flown,
        kind="rgbnir", alpha=False, category="rural-aerial-photos", in_recipe=False,
    ),
    Survey(
        "gisborne", "gisborne_2023_0.3m", 0.3, 5000, (2_037_600, 5_707_800), 540, 520, 4,
        (date(2023, 2, 20), date(2023, 3, 4)), missing=2, in_recipe=False,
    ),
)  # fmt: skip


def draw_linz(folder: Path, seed: int, pool: Executor) -> list[Future[Json]]:
    """Draw every survey below a folder; returns links to their collections for `write_linz_catalog`."""
    return [pool.submit(_survey, folder, seed, survey) for survey in SURVEYS]


def write_linz_catalog(folder: Path, children: list[Json]) -> None:
    """Write the root of the catalogue with links to the collections."""
    catalog = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "nz-imagery-demo",
        "title": "New Zealand Imagery (demo planet)",
        "description": "Made-up aerial surveys of the miniature planet.",
        "stac_extensions": [FILE],
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "self", "href": "./catalog.json", "type": "application/json"},
            *children,
        ],
    }
    _write_json(folder / "catalog.json", catalog)


def _survey(folder: Path, seed: int, survey: Survey) -> Json:
    here = folder / survey.path
    here.mkdir(parents=True)
    links, boxes = [], []
    for number in range(survey.sheets):
        name = survey.sheet(number)
        image = here / f"{name}.tiff"
        made = _item(survey, number)
        boxes.append(made["bbox"])
        if number == survey.missing:
            links.append(_link("item", f"./{name}.json", hashlib.sha256(b"").hexdigest()))
            continue
        _write_sheet(image, _ground(seed, survey, number), survey, number)
        made["assets"]["visual"]["file:checksum"] = f"1220{hashlib.sha256(image.read_bytes()).hexdigest()}"
        links.append(_link("item", f"./{name}.json", _write_json(here / f"{name}.json", made)))
    digest = _write_json(here / "collection.json", _collection(survey, links, np.array(boxes)))
    child = _link("child", f"./{survey.path}/collection.json", digest)
    return {**child, "type": "application/json", "title": _title(survey)}


def _collection(survey: Survey, links: list[Json], boxes: NDArray[np.float64]) -> Json:
    first, last = survey.flown
    end = _late_end(survey) if survey.late >= 0 else last
    up = "../" * (survey.path.count("/") + 1)
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": survey.id,
        "title": _title(survey),
        "description": "Made-up orthophotography of the miniature planet.",
        "license": "CC-BY-4.0",
        "links": [
            {"rel": "root", "href": f"{up}catalog.json", "type": "application/json"},
            {"rel": "self", "href": "./collection.json", "type": "application/json"},
            *links,
        ],
        "providers": [{"name": "Demo planet", "roles": ["host", "processor", "producer", "licensor"]}],
        "linz:slug": survey.slug,
        "linz:region": survey.region,
        "linz:lifecycle": "completed",
        "linz:geospatial_category": survey.category,
        "linz:security_classification": "unclassified",
        "gsd": survey.gsd,
        "created": f"{end.year + 1}-02-01T00:00:00Z",
        "updated": f"{end.year + 1}-02-01T00:00:00Z",
        "stac_extensions": [FILE],
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]]},
            "temporal": {"interval": [[_noon(first), _noon(end)]]},
        },
    }


def _item(survey: Survey, number: int) -> Json:
    name, (left, top) = survey.sheet(number), survey.corner(number)
    outline = shapely.box(left, top - survey.height * LATTICE, left + survey.width * LATTICE, top)
    footprint = shapely.transform(
        outline, lambda xy: np.column_stack(to_lonlat(NZTM).transform(xy[:, 0], xy[:, 1])).round(7)
    )
    start, end = survey.flown
    if number == survey.late:
        start, end = date(end.year + 1, 1, 15), _late_end(survey)
    properties = {"start_datetime": _noon(start), "end_datetime": _noon(end), "datetime": None}
    assets = {"visual": {"href": f"./{name}.tiff", "type": GEOTIFF}}
    made = item(name, survey.id, footprint, properties, assets, [FILE])
    made["links"] = [
        {"rel": "self", "href": f"./{name}.json", "type": "application/json"},
        {"rel": "collection", "href": "./collection.json", "type": "application/json"},
        {"rel": "parent", "href": "./collection.json", "type": "application/json"},
    ]
    return made


def _late_end(survey: Survey) -> date:
    return date(survey.flown[1].year + 1, 2, 3)


def _noon(day: date) -> str:
    return f"{day}T12:00:00Z"


def _title(survey: Survey) -> str:
    place = survey.slug.split("_")[0].replace("-", " ").title()
    return f"{place} {survey.gsd}m Demo Aerial Photos ({survey.slug.split('_')[1]})"


def _link(rel: str, href: str, digest: str) -> Json:
    return {"rel": rel, "href": href, "type": "application/geo+json", "file:checksum": f"1220{digest}"}


def _write_json(path: Path, document: dict[str, Any]) -> str:
    """Write a document; returns its SHA-256, hexadecimal."""
    text = (json.dumps(document, indent=2) + "\n").encode()
    path.write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def _ground(seed: int, survey: Survey, number: int) -> NDArray[np.uint8]:
    """Red, green, blue and near infrared of a sheet on the lattice, (4, height, width), never black.

    Sheets of a survey match at their edges, and surveys of the same place show the same ground.
    """
    (east, north), (kinds, stream) = survey.corner(number), GROUNDS[survey.region]
    shape, origin = (
        (survey.height // DETAIL, survey.width // DETAIL),
        (east - survey.origin[0], survey.origin[1] - north),
    )
    codes = aerial(seed, survey.region, kinds, shape, LATTICE * DETAIL, origin, stream)
    spots: NDArray[np.uint8] = colours()[:, codes]
    return spots.repeat(DETAIL, axis=1).repeat(DETAIL, axis=2)


def _write_sheet(path: Path, ground: NDArray[np.uint8], survey: Survey, number: int) -> None:
    colours = ground[: 4 if survey.kind == "rgbnir" else 3]
    valid = np.full(colours.shape[1:], 255, np.uint8)
    if number in survey.wedges:
        widths = np.linspace(CEILING, 0, survey.height).astype(int)
        valid[np.arange(survey.width) < widths[:, None]] = 0
        colours = np.where(valid, colours, np.uint8(0))
    cells = np.concatenate([colours, valid[None]]) if survey.alpha else colours
    # Nearest lattice cell at each pixel's centre; an integer factor if pixels are finer than 0.3 m.
    height, width = (round(side * LATTICE / survey.gsd) for side in (survey.height, survey.width))
    rows, columns = (((np.arange(n) + 0.5) * (survey.gsd / LATTICE)).astype(int) for n in (height, width))
    pixels = cells.take(columns, axis=2).take(rows, axis=1)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=len(pixels),
        dtype="uint8",
        crs=crs(NZTM),
        transform=Affine(survey.gsd, 0, survey.corner(number)[0], 0, -survey.gsd, survey.corner(number)[1]),
        photometric="RGB",
        interleave="pixel",
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="zstd",
        zstd_level=1,
    ) as sink:
        extra = (ColorInterp.undefined,) * (survey.kind == "rgbnir") + (ColorInterp.alpha,) * survey.alpha
        sink.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, *extra)
        sink.write(pixels)
