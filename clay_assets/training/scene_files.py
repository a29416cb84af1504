"""The files of a scene as they are read for training: where each lies, its header, and what its numbers mean.

One table per scene, a row per asset, holds all of it, so that reading chips opens no file and asks no catalogue.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.radiometry import RadiometricOffset
from clay_assets.sources.cog.headers import CogHeader, arrow_schema, read_header
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stores import Store

if TYPE_CHECKING:
    import pyarrow as pa

IN_FLIGHT = 4  # headers of one scene that are read at a time


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    Attributes:
        platform: platform key.
        item_id: of the scene.
        hrefs: asset → address of its file.
        headers: asset → header of its file.
        measured: asset → bands, from 1, that are measurements even where the file calls one alpha.
        radiometry: what is to be taken away from the numbers of its bands; None where the platform has none.
    """

    platform: str
    item_id: str
    hrefs: Mapping[str, str]
    headers: Mapping[str, CogHeader]
    measured: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    radiometry: RadiometricOffset | None = None

    @property
    def offset(self) -> int:
        """What every valid number of its bands holds too much."""
        return self.radiometry.offset if self.radiometry else 0


# What `decide` may ask for: the platform, its item and the headers of the files → the decision.
Decide = Callable[[AnyPlatform, Item, "SceneFiles"], RadiometricOffset]


def read_scene_files(platform: AnyPlatform, item: Item, decide: Decide | None = None) -> SceneFiles:
    """Read the headers of all files of a scene, a few at a time.

    Args:
        platform: of the scene, with the access to its files.
        item: normalised (see `Platform.read_item`), with hrefs that can be read.
        decide: what tells the radiometry; None: it is not looked at.

    Raises:
        InputError: a file is absent, forbidden or not a raster, or the item lacks an asset that is not optional.
        SourceError: a remote file could not be read now.
    """
    missing = platform.missing(item, platform.asset_names)
    if missing:
        raise InputError(f"{item['id']}: lacks the assets {', '.join(missing)}. Pick another scene.")
    names = [name for name in platform.asset_names if name in item["assets"]]
    hrefs = {name: platform.href(item["assets"][name]) for name in names}
    unique = list(dict.fromkeys(hrefs.values()))
    with ThreadPoolExecutor(min(IN_FLIGHT, len(unique))) as pool:
        of_href = dict(
            zip(unique, pool.map(lambda href: read_header(href, platform.access_to(href)), unique), strict=True)
        )
    headers = {name: of_href[href] for name, href in hrefs.items()}
    measured = {name: platform.measured(item, name) for name in names}
    files = SceneFiles(platform.key, item["id"], hrefs, headers, measured)
    return (
        files
        if decide is None or platform.radiometry is None
        else replace(files, radiometry=decide(platform, item, files))
    )


def schema() -> pa.Schema:
    """Columns of the table of a scene's files."""
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in ("item_id", "asset", "href")),
            ("measured_bands", pa.list_(pa.int32())),
            *arrow_schema(),
            ("radiometric_offset", pa.int32()),
            ("offset_evidence", pa.string()),
            ("processing_baseline", pa.string()),
            ("flagged_offset", pa.int32()),
            ("dark_levels", pa.map_(pa.string(), pa.float64())),
            ("projected_offset", pa.float64()),
            ("offset_contradiction", pa.string()),
        ]
    )


def to_table(files: SceneFiles) -> pa.Table:
    """One row per asset."""
    import pyarrow as pa

    told = files.radiometry
    shared: dict[str, Any] = {"item_id": files.item_id}
    if told is not None:
        shared |= {
            "radiometric_offset": told.offset,
            "offset_evidence": told.evidence,
            "processing_baseline": told.baseline,
            "flagged_offset": told.flagged,
            "dark_levels": list(told.lows.items()),
            "projected_offset": told.projected,
            "offset_contradiction": told.contradiction,
        }
    rows = [
        {
            **shared,
            "asset": name,
            "href": files.hrefs[name],
            "measured_bands": files.measured.get(name, ()),
            **header.to_record(),
        }
        for name, header in files.headers.items()
    ]
    return pa.Table.from_pylist(rows, schema=schema())


def from_rows(platform: str, rows: Sequence[Mapping[str, Any]]) -> SceneFiles:
    """The files of a scene from the rows of its table."""
    first = rows[0]
    told = None
    if first["offset_evidence"] is not None:
        told = RadiometricOffset(
            first["radiometric_offset"],
            first["offset_evidence"],
            first["processing_baseline"],
            first["flagged_offset"],
            dict(first["dark_levels"] or ()),
            first["projected_offset"],
            first["offset_contradiction"],
        )
    return SceneFiles(
        platform,
        first["item_id"],
        {row["asset"]: row["href"] for row in rows},
        {row["asset"]: CogHeader.from_record(row) for row in rows},
        {row["asset"]: tuple(row["measured_bands"]) for row in rows},
        told,
    )


def stored_scene_files(store: Store, platform: str, year: int, item_id: str) -> SceneFiles:
    """The files of a scene as `cog_headers` keeps them; one file is read.

    Raises:
        InputError: the scene has none.
    """
    import pyarrow.parquet as pq

    key = layout.headers(platform, year, item_id)
    try:
        return from_rows(platform, pq.read_table(io.BytesIO(store.read(key))).to_pylist())
    except FileNotFoundError as error:
        raise InputError(
            f"{store.uri(key)}: the scene has no headers. Materialise cog_headers of {platform}|{year}."
        ) from error
