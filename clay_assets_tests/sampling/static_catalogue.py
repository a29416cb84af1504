"""A synthetic static catalogue in the layout of nz-imagery. The expected values are in the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.linz import LinzOptions
from clay_assets.sampling.linz import Drawn, draw_sheets

Json = dict[str, Any]
TARANAKI, AUCKLAND = "taranaki/taranaki_2022_0.05m/rgb/2193", "auckland/auckland_2022_0.075m/rgb/2193"
YEAR_2022 = ("2022-01-07T11:00:00Z", "2022-03-22T11:00:00Z")


def sheets(count: int) -> list[str]:
    """Names of `count` map sheets."""
    return [f"BK30_500_{number:06d}" for number in range(count)]


def item(sheet: str, number: int = 0, **changed: Any) -> Json:
    """A sheet's item as LINZ writes it: with an interval, hrefs relative to the item, and the sheet's name as its id.

    Args:
        sheet: the sheet's name.
        number: position of the sheet; sheets lie side by side, a hundredth of a degree apart.
        changed: members to change; None removes one.
    """
    west, south = 174 + number % 100 / 100, -39 - number // 100 / 100
    east, north = west + 0.008, south + 0.008
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    whole = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/file/v2.0.0/schema.json"],
        "id": sheet,
        "collection": "as the item says",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"start_datetime": YEAR_2022[0], "end_datetime": YEAR_2022[1], "datetime": None},
        "links": [
            {"rel": "self", "href": f"./{sheet}.json", "type": "application/json"},
            {"rel": "collection", "href": "./collection.json", "type": "application/json"},
        ],
        "assets": {
            "visual": {"href": f"./{sheet}.tiff", "type": "image/tiff", "file:checksum": "1220" + 64 * "0"},
            "thumbnail": {"href": f"./{sheet}-thumbnail.jpg", "type": "image/jpeg"},
        },
        **changed,
    }
    return {name: value for name, value in whole.items() if name not in changed or value is not None}


def collection(
    identifier: str, names: Sequence[str], interval: Sequence[str | None] = YEAR_2022, **changed: Any
) -> Json:
    """A survey's collection with links to the items of its sheets, in the given order."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": identifier,
        "title": identifier,
        "description": "Orthophotography.",
        "license": "CC-BY-4.0",
        "gsd": 0.1,
        "extent": {"spatial": {"bbox": [[166, -48, 179, -34]]}, "temporal": {"interval": [list(interval)]}},
        "links": [
            {"rel": "root", "href": "https://nz-imagery.example/catalog.json", "type": "application/json"},
            {"rel": "self", "href": "./collection.json", "type": "application/json"},
            *({"rel": "item", "href": f"./{name}.json", "type": "application/geo+json"} for name in names),
        ],
        **changed,
    }


def write_root(folder: Path, paths: Sequence[str]) -> Path:
    """Write the root document of the catalogue, with links to the collections in these folders below it."""
    folder.mkdir(parents=True, exist_ok=True)
    links = [{"rel": "child", "href": f"./{path}/collection.json", "type": "application/json"} for path in paths]
    document = {"type": "Catalog", "stac_version": "1.0.0", "id": "nz-imagery", "description": "Imagery"}
    (folder / "catalog.json").write_text(json.dumps({**document, "links": links}))
    return folder


def write_survey(folder: Path, path: str, document: Json) -> Path:
    """Write a collection and the items it links to; returns its folder."""
    here = folder / path
    here.mkdir(parents=True, exist_ok=True)
    (here / "collection.json").write_text(json.dumps(document))
    hrefs = [link["href"] for link in document["links"] or [] if link["rel"] == "item"]
    for number, href in enumerate(hrefs):
        sheet = href.removeprefix("./").removesuffix(".json")
        (here / f"{sheet}.json").write_text(json.dumps(item(sheet, number)))
    return here


def write_catalogue(folder: Path, surveys: dict[str, Json]) -> Path:
    """Write a whole catalogue, given the document of each collection by folder."""
    for path, document in surveys.items():
        write_survey(folder, path, document)
    return write_root(folder, list(surveys))


def small_catalogue(folder: Path) -> Path:
    """A catalogue of two surveys of eight sheets each, all of which are drawn."""
    return write_catalogue(folder, {TARANAKI: collection("01T", sheets(8)), AUCKLAND: collection("01A", sheets(8))})


def draw(catalogue: Path | str, seed: int = 42, in_flight: int = 4, **options: Any) -> Drawn:
    """Draw with a recipe's defaults, except for these options."""
    return draw_sheets(PLATFORMS["linz"], str(catalogue), LinzOptions(**options), seed, in_flight)


def failures(drawn: Drawn) -> dict[str, str]:
    """Sheet or survey → error message."""
    return {record["name"]: record["error"] for record in drawn.failures}
