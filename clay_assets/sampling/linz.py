"""Draws the sheets of New Zealand's aerial surveys from each collection of the static catalogue.

Specification: the Clay model documentation, "Training Data", section "LINZ sampling strategy". Sheet names repeat
between surveys, so item ids consist of the collection's id and the sheet. Layout of the catalogue
(`{region}/{survey}/{product}/{epsg}/collection.json`): https://github.com/linz/imagery
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import floor
from pathlib import PurePosixPath
from typing import Any

import shapely
from shapely.errors import ShapelyError

from clay_assets.draws import draw
from clay_assets.errors import ClayError, InputError
from clay_assets.executors import run_bounded
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.linz import KEY, LinzOptions
from clay_assets.progress import OnProgress, no_progress
from clay_assets.sources.static_stac import absolute, links, parts_of, read_document, root_of, with_absolute_hrefs
from clay_assets.stac import Item, as_stac_1_1

PRODUCT = "rgb"  # 8-bit colour with or without alpha; other products are rgbnir, dem-hillshade, …
DEPTH = 5  # parts of a collection's path: region, survey, product, EPSG code, collection.json
STILL_FLOWN = "9999"  # sorts after every time: a STAC interval without an end is still open


@dataclass(frozen=True)
class Survey:
    """One colour collection of the catalogue.

    Attributes:
        region, name: such as `taranaki` and `taranaki_2022_0.05m`.
        href: address of its collection document.
    """

    region: str
    name: str
    href: str

    @property
    def prefix(self) -> str:
        """The survey's name in a recipe."""
        return f"{self.region}/{self.name}"


@dataclass
class Drawn:
    """The sampled sheets.

    Attributes:
        items: STAC items with absolute hrefs, ordered by id.
        collections: one record per survey, with the number of its sheets and of those drawn.
        absent: surveys of the recipe that are not in the catalogue.
        failures: one record per sheet or collection that could not be read: `name` and `error`.
    """

    items: list[Item] = field(default_factory=list)
    collections: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def sheets(self) -> int:
        """Number of sheets drawn, read or not."""
        return sum(record["drawn"] for record in self.collections)


def draw_sheets(
    platform: AnyPlatform,
    catalog: str,
    options: LinzOptions,
    seed: int,
    requests_in_flight: int,
    progress: OnProgress = no_progress,
) -> Drawn:
    """Draw sheets of each survey, and read their items.

    From each collection the recipe's share of the sheets is drawn, at least `min_scenes` (or all, if there are fewer)
    and at most `max_scenes`: those with the lowest keyed hash of (seed, `linz`, collection id, sheet).

    Args:
        platform: LINZ; the platform's assets are kept.
        catalog: address of the root document, or of its folder.
        options: the surveys, and the number of sheets.
        seed: the recipe's seed.
        requests_in_flight: number of documents read at once.
        progress: called with (items read, items in total).

    Raises:
        InputError: the catalogue is missing, or has none of the surveys.
        SourceError: the catalogue does not answer.
    """
    drawn = Drawn()
    with ThreadPoolExecutor(requests_in_flight, thread_name_prefix="clay-linz") as pool:
        jobs = []
        for survey, collection in _collections(catalog, options, pool, requests_in_flight, drawn):
            sheets = {_sheet(href): href for href in links(collection, "item", survey.href)}
            wanted = min(options.max_scenes, max(options.min_scenes, floor(options.share * len(sheets))))
            chosen = [str(sheet) for sheet in draw(sheets, wanted, seed, KEY, str(collection["id"]))]
            jobs += [(survey, collection, sheet, sheets[sheet]) for sheet in chosen]
            record = {"survey": survey.prefix, "collection": collection["id"], "gsd": collection.get("gsd")}
            drawn.collections.append({**record, "sheets": len(sheets), "drawn": len(chosen)})
        for done, (job, future) in enumerate(run_bounded(pool, _read_sheet, jobs, 2 * requests_in_flight), start=1):
            survey, _, sheet, href = job
            try:
                drawn.items.append(_as_kept(platform, future.result(), href))
            except ClayError as error:
                drawn.failures.append({"name": f"{survey.prefix} {sheet}", "error": str(error)})
            progress(done, len(jobs))
    drawn.items.sort(key=lambda item: str(item["id"]))
    drawn.failures.sort(key=lambda record: record["name"])
    return drawn


def _collections(
    catalog: str, options: LinzOptions, pool: ThreadPoolExecutor, in_flight: int, drawn: Drawn
) -> list[tuple[Survey, dict[str, Any]]]:
    """The collections to draw from, ordered by name; absent and unreadable ones are recorded in `drawn`."""
    root = root_of(catalog)
    surveys = _surveys(root)
    if options.surveys != "latest":
        known = {survey.prefix for survey in surveys}
        drawn.absent += [prefix for prefix in options.surveys if prefix not in known]
        surveys = [survey for survey in surveys if survey.prefix in options.surveys]
        if not surveys:
            raise InputError(
                f"CLAY_LINZ_CATALOG {root}: none of the recipe's surveys found, such as {options.surveys[0]}. "
                'Take their names from the catalogue, or set surveys = "latest".'
            )
    found = []
    for survey, future in run_bounded(pool, _read_collection, surveys, 2 * in_flight):
        try:
            found.append((survey, future.result()))
        except ClayError as error:
            drawn.failures.append({"name": survey.prefix, "error": str(error)})
    found.sort(key=lambda entry: (entry[0].prefix, entry[0].href))
    return _latest(found) if options.surveys == "latest" else found


def _surveys(root: str) -> list[Survey]:
    try:
        document = read_document(root)
    except InputError as error:
        raise InputError(f"CLAY_LINZ_CATALOG: {error} Give the root document of nz-imagery, or of a copy.") from error
    children = list(dict.fromkeys(links(document, "child", root)))  # a child may be linked twice
    found = []
    for href in children:
        parts = parts_of(href)[-DEPTH:]
        if len(parts) == DEPTH and parts[2] == PRODUCT:
            found.append(Survey(parts[0], parts[1], href))
    if not found:
        raise InputError(
            f"CLAY_LINZ_CATALOG {root}: none of its {len(children)} children is a collection "
            f"{{region}}/{{survey}}/{PRODUCT}/{{epsg}}/collection.json. "
            "Give the root document of nz-imagery, or a copy of it."
        )
    return found


def _latest(found: Sequence[tuple[Survey, dict[str, Any]]]) -> list[tuple[Survey, dict[str, Any]]]:
    """The survey of each region that ended last; of several that ended together, the one whose name sorts last."""
    best: dict[str, tuple[Survey, dict[str, Any]]] = {}
    for survey, collection in sorted(found, key=lambda entry: (_end(entry[1]), entry[0].name)):
        best[survey.region] = survey, collection
    return [best[region] for region in sorted(best)]


def _end(collection: dict[str, Any]) -> str:
    return str(collection["extent"]["temporal"]["interval"][0][1] or STILL_FLOWN)


def _read_collection(survey: Survey) -> dict[str, Any]:
    collection = read_document(survey.href)
    try:
        _end(collection)
        str(collection["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"{survey.href}: not a valid STAC collection ({error!r}).") from error
    return collection


def _read_sheet(job: tuple[Survey, dict[str, Any], str, str]) -> Item:
    survey, collection, sheet, href = job
    item = read_document(href)
    try:
        place = shapely.geometry.shape(item["geometry"])
        if place.is_empty or len(item["bbox"]) != len(place.bounds):
            raise ValueError("geometry and bbox must be two-dimensional and not empty")
        absent = [name for name, asset in item["assets"].items() if not isinstance(asset["href"], str)]
        if absent:
            raise TypeError(f"href of asset {absent[0]} is not a string")
        return {
            **with_absolute_hrefs(item, href),
            "id": f"{collection['id']}_{sheet}",
            "collection": str(collection["id"]),
            "properties": {
                **item["properties"],
                "gsd": collection.get("gsd"),
                "linz:region": survey.region,
                "linz:survey": survey.name,
                "linz:sheet": sheet,
            },
            "links": [{**link, "href": absolute(link["href"], href)} for link in item["links"]],
        }
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ShapelyError) as error:
        raise InputError(f"{href}: not a valid STAC item with geometry and assets ({error!r}).") from error


def _as_kept(platform: AnyPlatform, item: Item, href: str) -> Item:
    kept = platform.read_item(item)
    if missing := platform.missing(kept, platform.asset_names):
        raise InputError(f"{href}: asset {', '.join(missing)} is missing.")
    return as_stac_1_1(kept)


def _sheet(href: str) -> str:
    return PurePosixPath(parts_of(href)[-1]).stem
